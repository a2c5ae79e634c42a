#!/usr/bin/env bash
# Virtual environments of the peers that side_by_side.py and over_http.py run: make_environments.sh FOLDER
set -euo pipefail
folder=${1:?where to make them}
make_environment() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip install --quiet torch==2.13.0 transformers==4.57.6 "${@:2}"
}
make_environment sentence-transformers sentence-transformers==5.7.0
make_environment FlagEmbedding FlagEmbedding==1.4.2
make_environment infinity "infinity-emb[server,torch]==0.0.78"
