#!/bin/bash
# Builds a Debian package from release binaries, with nothing but dpkg-deb.
#
# Usage: packaging/build-deb.sh [OUTPUT_DIR]          (default: target/debian)
# BIN_DIR names the directory of finished binaries; without it they are built with cargo first.
# With SOURCE_DATE_EPOCH set, two runs give the same bytes.
set -euo pipefail
umask 022

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
out=${1:-$target/debian}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
arch=$(dpkg --print-architecture)
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH=$epoch

if [ -z "${BIN_DIR:-}" ]; then
    (cd "$root" && cargo build --release --locked --bin p2p_sync_daemon --bin syncctl)
    BIN_DIR=$target/release
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"

put() { install -D -m "$1" "$root/$2" "$stage/$3"; }

install -D -m 755 "$BIN_DIR/p2p_sync_daemon" "$stage/usr/bin/p2p_sync_daemon"
install -D -m 755 "$BIN_DIR/syncctl" "$stage/usr/bin/syncctl"
put 644 systemd/p2p-sync.service usr/lib/systemd/system/p2p-sync.service
put 644 systemd/p2p-sync.socket usr/lib/systemd/system/p2p-sync.socket
put 644 systemd/sysusers.conf usr/lib/sysusers.d/p2p-sync.conf
put 644 systemd/tmpfiles.conf usr/lib/tmpfiles.d/p2p-sync.conf
put 644 packaging/config.toml etc/p2p-sync/config.toml
put 644 packaging/debian/copyright usr/share/doc/p2p-sync/copyright
put 644 README.md usr/share/doc/p2p-sync/README.md
install -d "$stage/usr/share/p2p-sync/proto/p2psync/v1"
install -m 644 "$root"/proto/p2psync/v1/*.proto "$stage/usr/share/p2p-sync/proto/p2psync/v1/"
gzip -9n < "$root/CHANGELOG.md" > "$stage/usr/share/doc/p2p-sync/changelog.gz"

install -d "$stage/DEBIAN"
for script in postinst prerm postrm; do
    sed '/^#DEBHELPER#$/d' "$root/packaging/debian/$script" > "$stage/DEBIAN/$script"
    chmod 755 "$stage/DEBIAN/$script"
done
install -m 644 "$root/packaging/debian/conffiles" "$stage/DEBIAN/conffiles"
(cd "$stage" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) > "$stage/DEBIAN/md5sums"
size=$(du -sk --apparent-size "$stage/usr" "$stage/etc" | awk '{n += $1} END {print n}')
cat > "$stage/DEBIAN/control" <<CONTROL
Package: p2p-sync
Version: $version
Architecture: $arch
Maintainer: The p2p-sync contributors <noreply@p2p-sync.invalid>
Installed-Size: $size
Depends: libc6, libgcc-s1
Recommends: systemd
Section: net
Priority: optional
Description: keeps a folder the same on many machines, peer to peer
 A daemon that synchronises a folder without a server, and syncctl to drive it.
CONTROL

find "$stage" -exec touch --no-dereference --date="@$epoch" {} +
mkdir -p "$out"
deb=$out/p2p-sync_${version}_${arch}.deb
dpkg-deb --root-owner-group --build -Zxz "$stage" "$deb" >/dev/null
echo "$deb"
