# Runs one sshd in namespaces of its own: users, sudo rules and state folders that the machine does not have.
# $1 the bed's folder, $2 the configuration. Ends, with everything it started, when standard input ends.
set -e
d=$1
mount --bind "$d/etc/passwd" /etc/passwd
mount --bind "$d/etc/group" /etc/group
mount --bind "$d/etc/shadow" /etc/shadow
[ ! -e /etc/sudoers ] || mount --bind "$d/etc/sudoers" /etc/sudoers
for own in /run/sudo /var/lib/sudo /var/lib/gpuhost /run/systemd; do
    mkdir -p "$own"
    mount -t tmpfs none "$own"
done
mkdir -p /run/sshd
/usr/sbin/sshd -D -e -f "$2" </dev/null &
cat >/dev/null
