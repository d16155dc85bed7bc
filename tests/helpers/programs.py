"""Programs that run in processes forked from one Python, which has imported what takes long and is not tested."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

# Lightning imports these, by way of torchmetrics where they are installed, in four fifths of its time. None of them
# imports Lightning, this package, torchmetrics or Matplotlib: a program does.
PRELOADED = ("torch", "torch._dynamo", "scipy.signal", "scipy.stats", "transformers")

SERVER = """
import gc, importlib, importlib.util, json, os, sys
for name in sys.argv[1:]:
    if importlib.util.find_spec(name.split(".")[0]):
        importlib.import_module(name)
gc.collect()
gc.freeze()  # what is here already costs nothing when a forked process ends
for line in iter(sys.stdin.readline, ""):
    pid = os.fork()
    if pid == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
# The forked process: its own output, surroundings and arguments; it ends as every Python does.
job = json.loads(line)
for number, path in enumerate([os.devnull, job["stdout"], job["stderr"]]):
    opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(opened, number)
    os.close(opened)
os.chdir(job["folder"])
os.environ.clear()
os.environ.update(job["environment"])
sys.argv[:] = job["argv"]
sys.path[0] = job["path"]
exec(compile(job["code"], "<string>", "exec"))
"""


class Programs:
    """Runs programs in fresh processes, one after another.

    Each is as a Python that has just started, but for the modules in :data:`PRELOADED`: with its own modules,
    arguments, environment, working directory and output, and it ends on its own.
    """

    def __init__(self, folder: Path):
        self.folder, self.server = folder, None

    def _started(self):
        if self.server is None or self.server.poll() is not None:
            self.server = subprocess.Popen(
                [sys.executable, "-c", SERVER, *PRELOADED],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return self.server

    def run(self, code, *arguments, folder=ROOT, environment=(), path="", name="-c", timeout=240):
        """Run code as ``python -c`` does; what it printed and its exit status."""
        server, out, err = self._started(), self.folder / "stdout", self.folder / "stderr"
        job = {
            "code": code,
            "argv": [name, *map(str, arguments)],
            "path": str(path),
            "folder": str(folder),
            "environment": os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | dict(environment),
            "stdout": str(out),
            "stderr": str(err),
        }
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], timeout)[0]:
            self.close()
            raise subprocess.TimeoutExpired(job["argv"], timeout, out.read_bytes(), err.read_bytes())
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(job["argv"], status, *(_text(file) for file in (out, err)))

    def script(self, path, *arguments, **options):
        """Run a file as ``python file`` does."""
        code = f"import runpy\nrunpy.run_path({str(path)!r}, run_name='__main__')"
        return self.run(code, *arguments, path=Path(path).parent, name=str(path), **options)

    def module(self, name, *arguments, **options):
        """Run a module as ``python -m`` does."""
        code = f"import runpy\nrunpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
        return self.run(code, *arguments, name=name, **options)

    def close(self):
        """End the server, and whatever still runs."""
        if self.server is not None and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
        if self.server is not None:
            self.server.communicate()


def _text(file):
    return file.read_bytes().decode()
