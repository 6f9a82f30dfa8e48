#!/usr/bin/env bash
# Restores a cluster from a pitr repository in a directory with nothing but coreutils, lz4, zstd and jq.
#
#   restore-without-pitr.sh REPOSITORY CLUSTER[/SYSTEM_IDENTIFIER] BACKUP|latest TARGET [SETTING...]
#
# REPOSITORY  the directory with pitr.json in it
# CLUSTER     the cluster's name; with the system identifier where there is more than one
# BACKUP      a name under backups/, or "latest" for the one with the latest stop LSN
# TARGET      the new data directory: must not exist, or be empty
# SETTING     lines for postgresql.auto.conf, such as "recovery_target_time = '2026-11-21 14:25:00+00'";
#             without any, recovery goes on to the end of the archive
#
# Tablespaces are laid into TARGET.tablespaces/<oid>. The result does not archive (archive_mode = off). Start the server
# yourself afterwards; it fetches its WAL through TARGET/fetch-wal.sh, which this script writes.
# docs/FORMAT.md tells the formats. The content of every chunk is checked by its frame's own checksum.
set -euo pipefail
umask 077

die() { printf 'restore-without-pitr.sh: ERROR:  %s\n' "$*" >&2; exit 1; }
[ $# -ge 4 ] || die "usage: restore-without-pitr.sh REPOSITORY CLUSTER[/SYSTEM_IDENTIFIER] BACKUP|latest TARGET [SETTING...]"
for tool in lz4 zstd jq dd sha256sum od; do
  command -v "$tool" >/dev/null || die "the program \"$tool\" is missing"
done

repository=$(cd "$1" && pwd) cluster=$2 backup=$3 target=$4
shift 4
[ "$(jq -r .format "$repository/pitr.json")" = 1 ] || die "$repository is not a repository of format 1"

server=$repository/$cluster
if [ "${cluster%/*}" = "$cluster" ]; then
  servers=("$repository/$cluster"/*/server.json)
  [ ${#servers[@]} = 1 ] || die "$cluster has several system identifiers: say which, as CLUSTER/SYSTEM_IDENTIFIER"
  server=${servers[0]%/server.json}
fi
[ -f "$server/server.json" ] || die "$server holds no server"

# Unpacks one standard frame from standard input, of either kind, by its first four bytes. The name is for messages.
unpack() { # file with one or more frames
  case "$(od -An -tx1 -N4 "$1" | tr -d ' \n')" in
    04224d18) lz4 -dcq "$1" ;;
    28b52ffd) zstd -dcq "$1" ;;
    *) die "$1 is neither an LZ4 nor a Zstandard frame" ;;
  esac
}

# Whether somebody, or retention, forgot a backup: the newest of its notes about that says so. Named, it can be restored as long as
# nothing of it was removed.
forgotten() { # folder of a backup
  [ -d "$1/notes" ] && [ "$(find "$1/notes" -name '*.json' | sort | xargs -r cat |
    jq -rs 'map(select(.kind == "forgotten" or .kind == "remembered")) | last | .kind')" = forgotten ]
}

if [ "$backup" = latest ]; then
  # In the order of LSNs, not of names or clocks; they sort as text once both halves have eight digits.
  backup=$(for manifest in "$server"/backups/*/manifest; do forgotten "${manifest%/manifest}" || cat "${manifest%/manifest}/info"; done |
    jq -rs 'def padded: split("/") | map(("0000000" + .)[-8:]) | join(""); max_by(.stop_lsn | padded).id')
fi
folder=$server/backups/$backup
[ -f "$folder/manifest" ] || die "there is no complete backup \"$backup\" in $server/backups"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unpack "$folder/manifest" > "$scratch/manifest"
counted=$(head -n -1 "$scratch/manifest" | sha256sum | cut -d' ' -f1)
[ "$counted" = "$(tail -n 1 "$scratch/manifest" | jq -r .end.sha256)" ] || die "the manifest of $backup is damaged"

if [ -e "$target" ] && [ -n "$(ls -A "$target")" ]; then die "$target is not empty"; fi
mkdir -p "$target"
target=$(cd "$target" && pwd)

mapfile -t sources < <(head -n 1 "$scratch/manifest" | jq -r '.header.pack_sources[]')
segment_bytes=$(head -n 1 "$scratch/manifest" | jq -r .header.segment_size)

# How most frames are compressed; a few may differ, for example those of an earlier backup.
case "$(head -n 1 "$scratch/manifest" | jq -r .header.compression)" in
  zstd*) usual=zstd ;;
  *) usual=lz4 ;;
esac

# Where an entry lies, in $path: the data directory, or its tablespace's.
place() { # tablespace or "-", path
  if [ "$1" = - ]; then path=$target/$2; else path=$target.tablespaces/$1/$2; fi
}

# Unpacks one stored frame to standard output: pack source, pack number, offset, length. Two processes a frame, since a
# cluster has a thousand small files.
frame() {
  local pack
  printf -v pack '%s/packs/%s.%06d' "$server" "${sources[$1]}" "$2"
  dd if="$pack" iflag=skip_bytes,count_bytes skip="$3" count="$4" bs=1M status=none | "$usual" -dcq 2>/dev/null || {
    dd if="$pack" of="$scratch/frame" iflag=skip_bytes,count_bytes skip="$3" count="$4" bs=1M status=none
    : > "$scratch/other"
    unpack "$scratch/frame" > "$scratch/other" || die "a chunk in $pack at $3 is damaged"
    return 1
  }
}

# The verbs that the manifest is turned into, in its order. $current is the file being written.
directory() { # tablespace, path, mode in octal
  place "$1" "$2"
  mkdir -p -m "$3" "$path"
}
symlink() { # path; where it pointed on the server does not matter here
  mkdir -p "$target.tablespaces/${1##*/}"
  ln -sfn "$target.tablespaces/${1##*/}" "$target/$1"
}
file() { # tablespace, path, mode in octal
  place "$1" "$2"
  current=$path
  : > "$current"
  [ "$3" = 600 ] || chmod "$3" "$current"
}
zero() { truncate -s "+$1" "$current"; } # length
plain() { # source, pack, offset, stored length
  frame "$@" >> "$current" || cat "$scratch/other" >> "$current"
}
base() { # raw length, source, pack, offset, stored length
  frame "$2" "$3" "$4" "$5" > "$scratch/chunk" || mv "$scratch/other" "$scratch/chunk"
  # A base is cut or filled with zeros to the chunk's length, since the file may have changed its size since.
  truncate -s "$1" "$scratch/chunk"
}
pages() { # source, pack, offset, stored length, page numbers
  local page number=0
  frame "$1" "$2" "$3" "$4" > "$scratch/pages" || mv "$scratch/other" "$scratch/pages"
  shift 4
  for page in "$@"; do
    dd if="$scratch/pages" of="$scratch/chunk" bs=8192 skip="$number" seek="$page" count=1 conv=notrunc status=none
    number=$((number + 1))
  done
}
laid() { cat "$scratch/chunk" >> "$current"; }
complete() { # size; all are compared in the end, by one process
  printf '%s\0' "$current" >> "$scratch/files"
  printf '%s\n' "$1" >> "$scratch/sizes"
}

# Paths that are not UTF-8 stand in the manifest as {"hex": …}; they are turned into $'\x…' for the shell.
jq -r '
  def path: if type == "string" then @sh
    else "$'"'"'" + ([.hex | scan("..")] | map("\\x" + .) | join("")) + "'"'"'" end;
  def octal: [recurse(if . >= 8 then . / 8 | floor else empty end) % 8] | reverse | map(tostring) | join("");
  def place: "\(.b // 0) \(.p) \(.o) \(.s)";
  if .directory then .directory | "directory \(.tablespace // "-") \(.path | path) \(.mode | octal)"
  elif .symlink then .symlink | "symlink \(.path | path)"
  elif .file then .file |
    (if (.from // 0) == 0 then "file \(.tablespace // "-") \(.path | path) \(.mode | octal)" else empty end),
    (.chunks[] |
      if .h == null then "zero \(.r)"
      elif (.sets // []) == [] then "plain \(place)"
      else "base \(.r) \(place)", (.sets[] | "pages \(place) \(.n | map(tostring) | join(" "))"), "laid"
      end),
    (if .crc32c then "complete \(.size)" else empty end)
  else empty end' "$scratch/manifest" > "$scratch/verbs"
: > "$scratch/files"
: > "$scratch/sizes"
# shellcheck source=/dev/null
. "$scratch/verbs"
xargs -0 stat -c %s < "$scratch/files" > "$scratch/found"
cmp -s "$scratch/sizes" "$scratch/found" || die "a restored file has another size than the manifest says"

rm -f "$target"/postmaster.pid "$target"/postmaster.opts "$target"/standby.signal
mkdir -p "$target/pg_wal/archive_status"
chmod 700 "$target"

# The incomplete last segment of a backup that brought its WAL along, filled up to a segment's length.
for tail in "$folder"/wal/*; do
  [ -f "$tail" ] || continue
  unpack "$tail" > "$target/pg_wal/${tail##*/}"
  truncate -s "$segment_bytes" "$target/pg_wal/${tail##*/}"
done

cat > "$target/fetch-wal.sh" <<FETCH
#!/bin/sh
# restore_command of a restore without pitr: fetch-wal.sh %f %p. 1 means that the archive has no such file; above 125
# stops the recovery, which is right for everything else.
case "\$1" in
  *.history) object='$server/wal/'"\$1" ;;
  *)
    timeline=\$(printf %.8s "\$1")
    group=\$(printf %s "\$1" | cut -c 9-22)
    object='$server/wal/'"\$timeline/\$group/\$1"
    ;;
esac
[ -f '$repository/pitr.json' ] || exit 200
[ -f "\$object" ] || exit 1
case "\$(od -An -tx1 -N4 "\$object" | tr -d ' \n')" in
  04224d18) lz4 -dcq "\$object" > "\$2.part" || exit 201 ;;
  28b52ffd) zstd -dcq "\$object" > "\$2.part" || exit 201 ;;
  *) exit 201 ;;
esac
mv "\$2.part" "\$2" || exit 200
FETCH
chmod 700 "$target/fetch-wal.sh"

{
  printf '\n# Written by restore-without-pitr.sh.\n'
  printf "archive_mode = 'off'\n"
  # A quote is doubled for the settings file, a percent sign for restore_command.
  quoted=${target//\'/\'\'}
  printf "restore_command = '\"%s/fetch-wal.sh\" %%f \"%%p\"'\n" "${quoted//%/%%}"
  printf "recovery_target_action = 'promote'\n"
  printf '%s\n' "$@"
} >> "$target/postgresql.auto.conf"
: > "$target/recovery.signal"
sync
printf 'Restored %s to %s. Start the server on it; it replays WAL to the target and then opens.\n' "$backup" "$target"
