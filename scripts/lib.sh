# shellcheck shell=bash
# What all scripts here share: where things are, how to speak, how to become root. Sourced, never run.

repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() {
  printf 'ERROR:  %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'HINT:  %s\n' "$2" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Downloaded servers and tools live outside the repository, so that they survive a fresh clone. As root they must be
# reachable by the unprivileged user the test servers run as, and /root is not.
cache_dir() {
  if [ -n "${PITR_TEST_CACHE:-}" ]; then
    printf '%s\n' "$PITR_TEST_CACHE"
  elif [ "$(id -u)" = 0 ]; then
    printf '/var/cache/pitr-test\n'
  else
    printf '%s/.cache/pitr-test\n' "$HOME"
  fi
}

# Runs a command as root: directly, or through sudo for an ordinary user.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "cannot run \"$*\" as root: neither root nor sudo" "Install the packages named above by hand and run this again."
  fi
}

# Non-interactive sessions (cron, su, CI) often lack the directory in which rustup puts cargo.
case ":$PATH:" in
  *":$HOME/.cargo/bin:"*) ;;
  *) [ ! -d "$HOME/.cargo/bin" ] || PATH="$HOME/.cargo/bin:$PATH" ;;
esac

# Puts a finished directory under its final name in one step. A concurrent run may have been quicker: its copy is as good.
publish_directory() { # temporary, final
  mv -T "$1" "$2" 2>/dev/null || { rm -rf "$1"; [ -d "$2" ]; }
}
