#!/usr/bin/env bash
# The suite's core in every supported environment, each built anew under .matrix/ where it is not there yet.
#
#   newest     pytorch_lightning alone, at the versions of constraints.txt
#   both       pytorch_lightning and lightning beside each other; the tests run in lightning.pytorch
#   lightning  lightning alone, this package installed without its dependencies
#   oldest     the lowest versions that pyproject.toml admits (several gigabytes: torch comes with CUDA)
#
# Environments can be named: tests/matrix.sh lightning oldest
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tools=(pytest pytest-xdist hypothesis scipy scikit-learn pooch 'jsonargparse[signatures]')
core=(
    tests/integration/test_{callback,callback_logging,callback_setup,callback_training,damaged_checkpoints,loops}.py
    tests/integration/test_{namespaces,processes,resume}.py
    tests/reference/test_{counting,known_figures,real_data}.py
    tests/unit/binning
    tests/unit/capture/test_{layers,recorder}.py
    tests/unit/evaluation/test_{loaders,measure}.py
    tests/unit/functional/test_functional.py
    tests/unit/functional/discrete/test_counting.py
    tests/unit/functional/discretize/test_{bucketize,ids}.py
    tests/unit/measurement/test_{bad_data,device,information_plane,memory,processes,watched}.py
    tests/unit/plot/test_information_plane.py
    tests/unit/records/test_{earlier,files,history,record,saved}.py
)

build() { # name, then what pip is to install
    local bin=.matrix/$1/bin
    shift
    [ -x "$bin/pytest" ] && return
    "$python" -m venv "${bin%/bin}"
    "$bin/python" -m pip install --quiet "$@" "${tools[@]}"
    "$bin/python" -m pip install --quiet --no-deps --editable .
}

run() { # name, namespace, then options for pytest
    local bin=.matrix/$1/bin namespace=$2
    echo "== $1: $("$bin/python" -m pip list 2>/dev/null | grep -iE '^(torch|pytorch-lightning|lightning|torchmetrics) ' |
        tr -s ' ' | paste -sd, -), tests in $namespace"
    shift 2
    LIGHTNING_IB_NAMESPACE=$namespace OMP_NUM_THREADS=1 "$bin/python" -m pytest --quiet -n "${WORKERS:-2}" \
        --dist loadfile "$@" "${core[@]}"
}

[ $# -gt 0 ] || set -- newest both lightning oldest
for environment in "$@"; do
    case $environment in
    newest)
        build newest -c constraints.txt torch pytorch-lightning torchmetrics tensorboard matplotlib
        run newest pytorch_lightning
        ;;
    both)
        build both -c constraints.txt torch pytorch-lightning lightning torchmetrics tensorboard matplotlib
        run both lightning.pytorch
        ;;
    lightning)
        build lightning -c constraints.txt torch lightning torchmetrics tensorboard matplotlib
        .matrix/lightning/bin/python -m pip uninstall --quiet --yes pytorch-lightning
        run lightning lightning.pytorch
        ;;
    oldest)
        build oldest torch==2.4.0 pytorch-lightning==2.4.0 torchmetrics==1.4.0 tensorboard==2.17.0 \
            matplotlib==3.8.0 'numpy<2' 'setuptools<80'
        # Third parties warn of each other in old versions: there a warning is no error.
        run oldest pytorch_lightning -W default
        ;;
    *)
        echo "there is no environment $environment: newest, both, lightning, oldest" >&2
        exit 2
        ;;
    esac
done
