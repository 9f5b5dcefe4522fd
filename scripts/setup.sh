#!/usr/bin/env bash
# Install everything pixelvla needs into .venv: uv, the system GL libraries where they miss, and the locked environment.
# Safe to run again; does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

find_uv() {
    if uv --version >/dev/null 2>&1; then echo uv; return; fi
    if [ -x .tools/bin/uv ]; then echo .tools/bin/uv; return; fi
    say "installing uv into .tools"
    python3 -m venv .tools >&2
    .tools/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.8" >&2
    echo .tools/bin/uv
}

# MuJoCo draws through EGL and Mesa's software renderer when there is no GPU; OpenCV needs glib.
GL_PACKAGES="libegl1 libgl1 libgl1-mesa-dri libopengl0 libglib2.0-0"
have_gl() { ldconfig -p | grep -q 'libEGL\.so\.1' && ldconfig -p | grep -q 'libOpenGL\.so\.0' && ls /usr/lib/*/dri/swrast_dri.so >/dev/null 2>&1; }
install_gl() {
    have_gl && return
    local run=""
    [ "$(id -u)" = 0 ] || run="sudo"
    if ! command -v apt-get >/dev/null || { [ -n "$run" ] && ! command -v sudo >/dev/null; }; then
        say "the GL libraries for rendering miss. Install the equivalents of: $GL_PACKAGES"
        return
    fi
    say "installing the GL libraries: $GL_PACKAGES"
    $run apt-get update -qq
    $run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $GL_PACKAGES >/dev/null
}

UV=$(find_uv)
install_gl
# --inexact: plugins that the user has installed beside ours stay.
sync() { "$UV" sync --frozen --inexact "$@"; }
if [ -x .venv/bin/pixelvla ]; then
    say "bringing .venv to what uv.lock says"
    sync --quiet
else
    say "making .venv as uv.lock says; the first time downloads gigabytes, which takes minutes"
    # Compiled once by all cores: else every process would compile what it imports where Python may not write it down.
    sync --compile-bytecode
fi
say "done"
