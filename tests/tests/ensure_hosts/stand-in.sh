#!/bin/sh
# Stands in for what a host that shares its kernel and has no systemd cannot do. Each call that would change the
# system is recorded in /var/log/stand-ins.log; what is asked back is kept below /run/standins.
# stand-ins: swapon swapoff mkswap modprobe lsmod sysctl systemctl nft hostnamectl
me=${0##*/} S=/run/standins
log() { echo "$me $*" >>/var/log/stand-ins.log; }
case $me in
mkswap) log "$@" ;;
swapon)
    log "$@"
    grep -q "^$1	" $S/swaps || printf '%s\tfile\t1\t0\t-2\n' "$1" >>$S/swaps ;;
swapoff)
    log "$@"
    if [ "$1" = -a ]; then printf 'Filename\tType\tSize\tUsed\tPriority\n' >$S/swaps; fi ;;
modprobe)
    log "$@"
    echo "$(echo "$1" | tr - _) 16384 0" >>$S/modules ;;
lsmod) echo "Module Size Used by"; [ ! -e $S/modules ] || cat $S/modules ;;
hostnamectl) echo "System has not been booted with systemd as init system" >&2; exit 1 ;;
nft)
    case $1 in
    -f) log "$@"; cp "$2" $S/nft ;;
    list)
        [ -e $S/nft ] || exit 1
        [ "$2" = table ] || grep -q "chain $5 {" $S/nft ;;
    delete) log "$@"; rm -f $S/nft ;;
    esac ;;
sysctl)
    rc=0
    for a; do
        case $a in
        -*) ;;
        *=*) log "$@"; echo "${a#*=}" >"$S/sysctl/${a%%=*}" ;;
        *) if [ -e "$S/sysctl/$a" ]; then echo "$a = $(cat "$S/sysctl/$a")"; else echo "sysctl: cannot stat $a" >&2; rc=255; fi ;;
        esac
    done
    exit $rc ;;
systemctl)
    verb= units=
    while [ $# -gt 0 ]; do
        case $1 in
        -p) shift ;;
        -*) ;;
        *) if [ -n "$verb" ]; then units="$units $1"; else verb=$1; fi ;;
        esac
        shift
    done
    # A unit is known by its file or by what this script keeps of it.
    state() {
        u=$1; case $u in *.*) ;; *) u=$u.service ;; esac
        a=inactive; e=
        [ ! -e "/etc/systemd/system/$u" ] || e=disabled
        [ ! -e "$S/units/$u" ] || read -r a e <"$S/units/$u"
    }
    rc=0 first=1
    [ "$verb" != daemon-reload ] || log daemon-reload
    for unit in $units; do
        state "$unit"
        case $verb in
        show)
            [ -n "$first" ] || echo
            first=
            l=loaded; [ -n "$e" ] || l=not-found
            printf 'LoadState=%s\nActiveState=%s\nUnitFileState=%s\nNeedDaemonReload=no\n' "$l" "$a" "$e" ;;
        is-active) echo "$a"; [ "$a" = active ] || rc=3 ;;
        is-enabled) echo "${e:-not-found}"; [ "$e" = enabled ] || rc=1 ;;
        start|restart|stop|enable|disable)
            log "$verb $unit"
            [ -n "$e" ] || { echo "Unit $u not found." >&2; exit 5; }
            case $verb in
            start|restart) a=active ;;
            stop) a=inactive ;;
            enable) e=enabled ;;
            disable) e=disabled ;;
            esac
            echo "$a $e" >"$S/units/$u" ;;
        esac
    done
    exit $rc ;;
esac
