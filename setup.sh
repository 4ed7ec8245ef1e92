# Makes .venv with the pinned requirements of pyproject.toml and activates it: `source setup.sh`.
# A finished set-up has a stamp and is not repeated; PYTHON=python3.12 chooses another interpreter.
# A shell without BASH_SOURCE (dash) knows only the script that sources this file, here or in scripts/.
_root="$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE:-$0}")" && pwd)"
[ -f "$_root/setup.sh" ] || _root="$(dirname "$_root")"
_stamp="$_root/.venv/.stamp-$(sha256sum "$_root/pyproject.toml" | cut -c1-16)"
if [ ! -f "$_stamp" ]; then
  _python="${PYTHON:-python3}"
  if ! "$_python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    echo "error: $_python is $("$_python" --version 2>&1); expected Python 3.10 - 3.12: name one with PYTHON=python3.11" >&2
    exit 2
  fi
  echo "Setting up $_root/.venv (once; downloads the requirements) ..."
  trap 'echo interrupted >&2; exit 130' INT # else Ctrl-C would be answered as if a step had failed
  "$_python" -m venv "$_root/.venv" || { echo "error: no venv module; install it with: apt-get install python3-venv" >&2; exit 2; }
  "$_root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$_root[dev,pretrain,quality,studio]" || {
    echo "error: installing the requirements failed; see pip's message above, then run this again" >&2
    exit 2
  }
  rm -f "$_root"/.venv/.stamp-*
  touch "$_stamp"
  trap - INT
fi
. "$_root/.venv/bin/activate"
