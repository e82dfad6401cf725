#!/usr/bin/env bash
# Makes what `make test-models` needs, in .make/models: real inference servers and a tiny model for them.
#
#   venv/        transformers (`transformers serve`), llama-cpp-python's server, and what the training needs
#   llama/bin/   llama.cpp's own server, built from the sources that llama-cpp-python carries; both use these libraries
#   hf/, tiny.gguf   the model, trained here on tests/models/dialogues.py, for transformers and for llama.cpp
#
# Each part is made once and again only when what it is made from has changed. JOBS=… processes compile (all processors).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD/.make/models
tests=tests/models
python=$root/venv/bin/python
mkdir -p "$root"

. scripts/made.sh

make_venv() {
    say "Installing transformers, torch and llama-cpp-python in .make/models/venv (once; 1.3 GB or more) …"
    rm -rf "$root/venv"
    .venv/bin/python -m venv "$root/venv"
    # Without its own copy of llama.cpp: make_llama builds that.
    CMAKE_ARGS=-DLLAMA_BUILD=OFF "$python" -m pip install -qq --disable-pip-version-check --no-input -r $tests/requirements.txt
}

make_llama() {
    local build=$root/llama source=$root/source
    say "Building llama.cpp's server (once; six minutes on two processors) …"
    rm -rf "$build" "$source"
    mkdir -p "$source"
    "$python" -m pip download -qq --disable-pip-version-check --no-input --no-deps --no-binary :all: -d "$source" \
        "$(grep -o 'llama-cpp-python.*' $tests/requirements.txt | sed 's/\[server\]//')"
    tar -xzf "$source"/*.tar.gz -C "$source" --strip-components 1
    local cmake=$root/venv/bin/cmake options=(
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=OFF -DLLAMA_BUILD_TESTS=OFF
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
        -DLLAMA_OPENSSL=OFF -DCMAKE_MAKE_PROGRAM="$root/venv/bin/ninja"
    )
    if ! { "$cmake" -S "$source/vendor/llama.cpp" -B "$build" -G Ninja "${options[@]}" &&
        "$cmake" --build "$build" --target llama-server -j "${JOBS:-$(nproc)}"; } >"$root/llama.log" 2>&1; then
        tail -n 20 "$root/llama.log" >&2
        say "llama.cpp could not be built; a C++ compiler is needed. All of the output is in $root/llama.log."
        exit 1
    fi
    rm -rf "$source"
}

make_model() {
    say "Training the tiny model (once, and when its dialogues change; a minute or two) …"
    "$python" $tests/train.py "$root/dialogues.json" "$root" >&2
}

venv_from=("$tests/requirements.txt")
is_made venv "${venv_from[@]}" || { make_venv && made venv "${venv_from[@]}"; }
is_made llama "${venv_from[@]}" || { make_llama && made llama "${venv_from[@]}"; }
# The prompts are those that the generator makes today: where these change, the model is taught anew.
.venv/bin/python -m tests.models.dialogues >"$root/dialogues.json"
model_from=("$root/dialogues.json" "$tests/train.py" "$tests/chat_template.jinja")
is_made model "${model_from[@]}" || { make_model && made model "${model_from[@]}"; }
