#!/bin/sh
# Becomes a host: runs as the first process of new mount, PID, UTS, IPC and network namespaces.
#   host-up.sh DIR NAME SHELL     SHELL: dash or busybox; NAME rpmhost: packages by dnf instead of apt
# The root is an overlay over the running system's own files with everything written going to memory; nothing of it
# is seen outside, and all of it is gone with the last process.
set -eu
dir=$1 name=$2 shell=$3 here=$(cd "$(dirname "$0")" && pwd)
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=400m tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
root=$dir/root
for d in proc sys dev run tmp; do mkdir -p "$root/$d"; done
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755,size=64m tmpfs "$root/dev"
for n in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$root/dev/${n%:*}" c 1 "${n#*:}"; done
mknod -m 666 "$root/dev/tty" c 5 0
mkdir "$root/dev/pts" "$root/dev/disk" "$root/dev/disk/by-id"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755,size=16m tmpfs "$root/run"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/tmp"
mkdir -p "$root/run/sshd" "$root/run/systemd/system" "$root/run/lock"
# Blank "disks": files, which mkfs, blkid and wipefs take for what they are.
truncate -s 16M "$root/dev/disk/by-id/blank"
truncate -s 16M "$root/dev/disk/by-id/used"
mkfs.ext4 -q -F -L others "$root/dev/disk/by-id/used" 2>/dev/null || : >"$root/dev/disk/by-id/no-mkfs"
ip link set lo up 2>/dev/null || :
hostname "$name"
echo "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
printf '/dev/root / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n' >"$root/etc/fstab"

# The kernel's swap list is shared: this host sees one of its own.
mkdir -p "$root/run/standins/units" "$root/run/standins/sysctl"
printf 'Filename\tType\tSize\tUsed\tPriority\n/swap.img\tfile\t1024\t0\t-2\n' >"$root/run/standins/swaps"
[ ! -e "$root/proc/swaps" ] || mount --bind "$root/run/standins/swaps" "$root/proc/swaps"
for u in chrony.service iscsid.service; do echo "inactive disabled" >"$root/run/standins/units/$u"; done
echo "active enabled" >"$root/run/standins/units/multipathd.service"
echo "active enabled" >"$root/run/standins/units/systemd-timesyncd.service"
echo 60 >"$root/run/standins/sysctl/vm.swappiness"
install -m 755 "$here/stand-in.sh" "$root/usr/local/lib/gpuhost-stand-in"
for p in $(sed -n 's/^# stand-ins: //p' "$here/stand-in.sh"); do ln -sf /usr/local/lib/gpuhost-stand-in "$root/usr/local/bin/$p"; done
mkdir -p "$root/usr/lib/systemd/system"
rm -f "$root"/usr/lib/systemd/system/chrony*.service "$root"/lib/systemd/system/chrony*.service
: >"$root/usr/lib/systemd/system/systemd-timesyncd.service"

# Packages: real apt and dpkg over a source of one empty package that lies on the host itself.
if command -v dpkg-deb >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
    rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/* "$root"/var/lib/apt/lists/*
    mkdir -p "$root/opt/repo/p/DEBIAN" "$root/var/lib/apt/lists/partial" "$root/etc/apt/sources.list.d"
    for p in gpuhost-tool nftables; do
        printf 'Package: %s\nVersion: 1.5\nArchitecture: all\nMaintainer: t <t@localhost>\nDescription: empty\n' $p >"$root/opt/repo/p/DEBIAN/control"
        chmod 755 "$root/opt/repo/p" "$root/opt/repo/p/DEBIAN"
        dpkg-deb -b "$root/opt/repo/p" "$root/opt/repo/$p.deb" >/dev/null
        { cat "$root/opt/repo/p/DEBIAN/control"
          echo "Filename: ./$p.deb"
          echo "Size: $(stat -c %s "$root/opt/repo/$p.deb")"
          echo "SHA256: $(sha256sum <"$root/opt/repo/$p.deb" | cut -d' ' -f1)"; echo; } >>"$root/opt/repo/Packages"
    done
    chmod -R a+rX "$root/opt/repo"
else
    : >"$root/run/standins/no-apt"
fi

# Packages by real dnf and rpm: this host has no apt and no dpkg.
if [ "$name" = rpmhost ]; then
    rm -f "$root"/usr/bin/apt* "$root"/usr/bin/dpkg*
    rm -rf "$root"/etc/yum.repos.d "$root"/etc/dnf/plugins "$root"/var/cache/dnf "$root"/var/lib/rpm "$root"/var/lib/dnf "$root"/root/.rpmdb
    mkdir -p "$root/etc/yum.repos.d" "$root/opt/none" "$root/opt/rpms" "$root/var/lib/rpm"
    for p in gpuhost-tool nftables; do
        printf 'Name: %s\nVersion: 1.5\nRelease: 1\nSummary: empty\nLicense: MIT\nBuildArch: noarch\n%%description\nempty\n%%files\n' $p >"$root/opt/$p.spec"
        rpmbuild -bb --quiet --define "_topdir $root/opt/build" --define "_rpmdir $root/opt/rpms" --define "_dbpath $root/opt/build/db" "$root/opt/$p.spec"
    done
    createrepo_c --quiet "$root/opt/rpms"
    createrepo_c --quiet "$root/opt/none"
    printf '[tools]\nname=tools\nbaseurl=file:///opt/rpms\nenabled=1\ngpgcheck=0\n' >"$root/etc/yum.repos.d/tools.repo"
fi

# A login that has to become root, as cloud images have, beside root itself.
grep -q '^ops:' "$root/etc/passwd" || echo 'ops:x:4711:4711::/home/ops:/bin/sh' >>"$root/etc/passwd"
grep -q '^ops:' "$root/etc/group" || echo 'ops:x:4711:' >>"$root/etc/group"
grep -q '^ops:' "$root/etc/shadow" || echo 'ops:*:19000:0:99999:7:::' >>"$root/etc/shadow"
sed -i 's#^\(root:.*:\)[^:]*$#\1/bin/sh#' "$root/etc/passwd"
echo 'ops ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/90-ops" 2>/dev/null || :
chmod 440 "$root/etc/sudoers.d/90-ops" 2>/dev/null || :
for h in root:0 home/ops:4711; do
    mkdir -p "$root/${h%:*}/.ssh"
    cp "$dir.pub" "$root/${h%:*}/.ssh/authorized_keys"
    chmod 700 "$root/${h%:*}/.ssh"; chmod 600 "$root/${h%:*}/.ssh/authorized_keys"
    chown -R "${h#*:}:${h#*:}" "$root/${h%:*}/.ssh"
done
chown 4711:4711 "$root/home/ops"
chmod 700 "$root/root"
install -m 600 "$dir.host" "$root/etc/ssh/gpuhost_host_key"
cat >"$root/etc/ssh/gpuhost_sshd_config" <<END
HostKey /etc/ssh/gpuhost_host_key
PasswordAuthentication no
UsePAM no
UseDNS no
StrictModes yes
PermitRootLogin yes
LogLevel VERBOSE
MaxSessions 10
PrintMotd no
PrintLastLog no
END

# The shell under test, and with busybox the small tools beside it: found before the others.
if [ "$shell" = busybox ]; then
    bb=$(command -v busybox)
    # Through the link, not onto what it points to.
    rm -f "$root/bin/sh"; cp "$bb" "$root/usr/local/lib/busybox"; ln -s /usr/local/lib/busybox "$root/bin/sh"
    for t in awk base64 cat chmod chown cut date grep head id install ln ls mkdir mv readlink rm sed sha256sum sleep sort stat tail timeout touch tr uname wc sh; do
        ln -sf /usr/local/lib/busybox "$root/usr/local/sbin/$t"
    done
fi
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old
: >/run/standins/ready
exec sleep 100000
