#!/data/data/com.termux/files/usr/bin/sh
# Installs sottovoce in Termux: sh install.sh sottovoce-0.1.0-py3-none-any.whl
# NumPy and ONNX Runtime come as Termux's own packages, because PyPI has none for Android; pip then adds one file of plain
# Python, and must not look for the two again.
set -eu

wheel=${1:?the wheel of sottovoce: sh install.sh sottovoce-0.1.0-py3-none-any.whl}
[ -f "$wheel" ] || { echo "$wheel: no such file" >&2; exit 2; }
case $(uname -m) in
    aarch64 | x86_64) ;;
    *) echo "$(uname -m): a 64-bit phone is needed" >&2; exit 2 ;;
esac

if command -v pkg >/dev/null; then
    pkg update -y
    pkg install -y python python-pip python-numpy python-onnxruntime
fi
python -m pip install --no-deps --force-reinstall "$wheel"
python -c 'import numpy, onnxruntime; print("numpy", numpy.__version__, "onnxruntime", onnxruntime.__version__)'
sottovoce doctor
