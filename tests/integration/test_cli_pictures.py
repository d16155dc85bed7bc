"""``lightning-ib plot``, ``compare``, ``movie`` and ``page``."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from lightning_ib.cli import main
from lightning_ib.records import History
from tests.helpers import ROOT
from tests.unit.plot.test_panels import history
from tests.unit.records.test_phases import gradients


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs in a folder that is current."""
    history().to_csv(tmp_path / "runs" / "tanh" / "information_plane.csv")
    history(("conv", "new"), shift=-1).to_csv(tmp_path / "runs" / "relu" / "information_plane.csv")
    monkeypatch.chdir(tmp_path)
    return ["runs/tanh", "runs/relu"]


def frames(name):
    """How many frames a picture has, its size, and how long the last one stays."""
    with Image.open(name) as film:
        film.seek(film.n_frames - 1 if hasattr(film, "n_frames") else 0)
        return getattr(film, "n_frames", 1), film.size, film.info.get("duration")


def refused(capsys, *arguments, code=2):
    assert main(list(map(str, arguments))) == code
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    return err.strip().splitlines()[-1]


def test_a_picture_in_every_format(runs, tmp_path, capsys):
    assert main(["plot", runs[0]]) == 0
    assert capsys.readouterr().out == "picture: plane.png\n"
    assert frames("plane.png")[1] == (936, 728)
    assert main(["plot", runs[0], "-o", "out/plane.svg", "--style", "paper"]) == 0
    assert ">conv</text>" in (tmp_path / "out" / "plane.svg").read_text()
    assert main(["plot", runs[0], "-o", "plane.PDF", "--layers", "c*"]) == 0
    pdf = (tmp_path / "plane.PDF").read_bytes()
    assert (pdf[:5], b"/Type3" in pdf) == (b"%PDF-", False)
    assert main(["plot", runs[0], "-o", "paper.png", "--style", "paper"]) == 0
    assert frames("paper.png")[1][0] == 3.4 * 300


def test_several_runs_and_each_layer(runs, tmp_path):
    assert main(["plot", *runs, "-o", "runs.svg", "--unit", "nats"]) == 0
    assert "I(X;T) [nats]" in (tmp_path / "runs.svg").read_text()
    assert main(["plot", runs[0], "--each-layer", "-o", "layers.svg"]) == 0
    assert (tmp_path / "layers.svg").read_text().count(">I(X;T) [bits]<") == 3


def test_one_of_several_targets_is_chosen(runs, tmp_path, capsys):
    for run in runs:
        points = History.read_csv(f"{run}/information_plane.csv").points()
        both = [
            p._replace(target=name, i_ty=share * p.i_ty)
            for p in points
            for name, share in {"class": 1, "half": 0.5}.items()
        ]
        History.of(both).to_csv(f"{run}/information_plane.csv")
    for chosen, name in (([], "class"), (["--target", "half"], "half")):
        assert main(["plot", runs[0], "-o", "plane.svg", *chosen]) == 0
        assert f"target {name}, epochs" in (tmp_path / "plane.svg").read_text()
        capsys.readouterr()
        assert main(["compare", *runs, "-o", "compare.svg", *chosen]) == 0
        assert f">tanh, {name}<" in (tmp_path / "compare.svg").read_text()
        assert capsys.readouterr().out.startswith("epoch ")
    assert main(["page", runs[0], "--target", "half"]) == 0
    assert '"targets":["half"]' in (tmp_path / "plane.html").read_text()
    capsys.readouterr()
    assert refused(capsys, "plot", runs[0], "--target", "hal") == (
        "lightning-ib plot: runs/tanh/information_plane.csv has no target hal: did you mean half?"
    )
    history().to_csv("single/information_plane.csv")
    assert "no targets by name, so that --target half chooses nothing" in refused(
        capsys, "movie", "single", "--target", "half"
    )


def test_the_phases_of_gradients_are_drawn_from_a_run_with_a_plane_and_from_one_without(runs, tmp_path, capsys):
    whole = History.read_csv("runs/tanh/information_plane.csv") + gradients(1) + gradients(2)
    whole.to_csv("runs/tanh/information_plane.csv")
    whole.gradients().to_csv("alone/gradients.csv")
    for run in ("runs/tanh", "alone"):
        assert main(["plot", run, "--gradients", "-o", f"{run}.svg"]) == 0
        assert (tmp_path / f"{run}.svg").read_text().count(">epoch</text>") == 2
    assert main(["plot", "runs/tanh", "-o", "plane.svg"]) == 0
    assert main(["page", "runs/tanh"]) == 0
    capsys.readouterr()
    assert refused(capsys, "plot", "alone/gradients.csv") == (
        "lightning-ib plot: alone/gradients.csv holds gradients alone: lightning-ib plot --gradients draws them."
    )
    assert refused(capsys, "plot", runs[1], "--gradients") == (
        "lightning-ib plot: runs/relu/information_plane.csv holds no gradients: GradientSNRCallback records them, "
        "epoch by epoch."
    )
    assert "--gradients draws one run, got several: give one of them." in refused(
        capsys, "plot", "runs/tanh", "alone", "--gradients"
    )
    assert "are two pictures: give one of them." in refused(capsys, "plot", "runs/tanh", "--gradients", "--each-layer")


def test_runs_are_compared(runs, tmp_path, capsys):
    assert main(["compare", *runs]) == 0
    out = capsys.readouterr().out
    assert out.startswith("epoch 3, the last that all runs have, in bits; in parentheses the difference from tanh")
    assert "only in tanh: dense, out\nonly in relu: new\npicture: compare.png\n" in out
    assert re.search(r"conv +tanh +8.250 +2.200 +8.250 +ok\n +relu +7.250 \(-1.000\)", out)
    assert (tmp_path / "compare.png").is_file()


def test_a_film_has_a_frame_for_each_measurement(runs, capsys):
    assert main(["movie", runs[0], "--fps", "2"]) == 0
    assert capsys.readouterr().out == "film: plane.gif\n"
    assert frames("plane.gif") == (4, (792, 616), 1500)  # Pillow joins the equal frames at the end into one


def test_without_ffmpeg_a_sentence_says_what_to_do(runs, capsys, monkeypatch):
    from matplotlib.animation import FFMpegWriter

    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda _: False))
    assert "needs ffmpeg, which is not on the path: install it" in refused(capsys, "movie", runs[0], "-o", "a.mp4")


def test_mp4_goes_through_ffmpeg(runs, tmp_path, monkeypatch, capsys):
    """A program in the place of ffmpeg takes the frames and writes the file that it is asked for."""
    from matplotlib import rc_context

    fake = tmp_path / "ffmpeg"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nopen(sys.argv[-1], 'wb').write(b'%d' % len(sys.stdin.buffer.read()))\n"
    )
    fake.chmod(0o755)
    with rc_context({"animation.ffmpeg_path": str(fake)}):
        assert main(["movie", runs[0], "-o", "plane.mp4", "--fps", "2"]) == 0
    frame = 4 * 792 * 616
    assert int((tmp_path / "plane.mp4").read_text()) == frame * (3 + 3)
    assert not list(tmp_path.glob("*partial*"))


def test_a_page_holds_every_run(runs, tmp_path, capsys):
    assert main(["page", *runs, "--title", "tanh & ReLU"]) == 0
    assert capsys.readouterr().out == "page: plane.html\n"
    html = (tmp_path / "plane.html").read_text()
    assert "<title>tanh &amp; ReLU</title>" in html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])
    assert {name: [one["epoch"] for one in of] for name, of in data} == {
        "tanh": [0, 1, 2, 3],
        "relu": [0, 1, 2, 3],
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plot", "runs/tanh", "-o", "plane.jpg"], "-o plane.jpg must end in .png, .svg or .pdf."),
        (["page", "runs/tanh", "-o", "plane.png"], "-o plane.png must end in .html or .htm."),
        (["plot", "runs"], "the folder runs holds no information_plane.csv: did you mean runs/relu or runs/tanh?"),
        (
            ["plot", "runs/tanh", "runs/relu", "--each-layer"],
            "--each-layer draws one run, got several: give one of them.",
        ),
        (["compare", "runs/tanh"], "compare needs several runs, got tanh alone: give a second one, or use plot."),
        (["movie", "runs/tanh", "--fps", "0"], "--fps must be above 0 and at most 60, got 0."),
        (["plot", "runs/tanh", "-o", "runs/tanh/information_plane.csv/a.png"], "cannot be written: "),
    ],
)
def test_wrong_input_is_one_sentence(runs, capsys, arguments, sentence):
    assert sentence in refused(capsys, *arguments)


def test_errors_and_interruptions_have_their_codes(runs, capsys, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("out of ink")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lightning_ib.plot.plot_information_plane", failing)
        assert refused(capsys, "plot", runs[0], code=1) == (
            "lightning-ib plot: RuntimeError: out of ink (--traceback shows where.)"
        )
        with pytest.raises(RuntimeError, match="out of ink"):
            main(["plot", runs[0], "--traceback"])
        patched.setattr("lightning_ib.plot.plot_information_plane", interrupted)
        assert refused(capsys, "plot", runs[0], code=130) == "lightning-ib plot: interrupted."


def test_help_teaches_every_command_and_imports_neither_torch_nor_lightning(capsys):
    for command in ("replay", "plot", "compare", "movie", "page"):
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        assert f"lightning-ib {command}" in out
        assert "example" in out
    code = (
        "import sys; from lightning_ib.cli import main; main(['--help']);"
        "sys.exit(bool({'torch', 'matplotlib', 'numpy', 'pytorch_lightning', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.slow
def test_a_film_of_a_run_with_missing_values(tmp_path, monkeypatch):
    from tests.unit.plot.test_information_plane import point

    monkeypatch.chdir(tmp_path)
    nan = float("nan")
    missing = History.of([point(4, "conv", nan, nan), point(4, "out", nan, nan)])
    (history() + missing).to_csv("information_plane.csv")
    assert main(["movie", "."]) == 0
    assert frames("plane.gif")[0] == 4
