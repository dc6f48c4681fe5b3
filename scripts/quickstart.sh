#!/bin/sh
# quickstart.sh: from a fresh checkout to a notebook that has run. The one thing behind `make quickstart`.
#
# The notebook needs ipykernel only, so it runs before JupyterLab, by far the biggest download, is installed.
set -eu
cd "$(dirname "$0")/.."

sh scripts/venv.sh notebook
.venv/bin/python -m ipykernel install --prefix .venv --name cellwall --display-name "Python (cellwall)" >/dev/null
if ! .venv/bin/python notebooks/run.py notebooks/quickstart.ipynb; then
    printf '\nWhat this machine lacks, as far as `.venv/bin/cellwall doctor` can tell:\n\n' >&2
    .venv/bin/python - >&2 <<'END'
from cellwall.runtime.probes import run_all

for probe in run_all():
    if probe.status != "ok":
        print(f"    {probe.name}: {probe.detail}", f"        {probe.mend}" * bool(probe.mend), sep="\n")
END
    exit 1
fi

sh scripts/venv.sh notebook lab
cat <<'END'

The same notebook in JupyterLab:

    .venv/bin/jupyter lab notebooks/quickstart.ipynb
END
if [ "$(id -u)" -eq 0 ]; then
    echo "    (as root JupyterLab asks for one more word: --allow-root)"
fi
