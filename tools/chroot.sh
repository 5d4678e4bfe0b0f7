# shellcheck shell=bash
# Debian releases in directories of their own, made with debootstrap from the
# mirror and the proxies that this machine's apt uses; sourced by
# tools/check-versions. Root only.
#
#   chroot_make RELEASE ROOT            makes ROOT, whole or not at all
#   chroot_change ROOT CMD ...          runs CMD in it as root; may change it
#   chroot_older ROOT RELEASE MAJOR     brings PostgreSQL MAJOR from an older RELEASE into it
#   chroot_enter ROOT TMP CMD ...       runs CMD in it; changes nothing but TMP, its /tmp
#
# To be run in the background or a subshell, which they replace. Their mounts
# and processes have namespaces of their own, which end with the process that
# was started, and that ends with its parent: nothing is left behind, however
# either ends. SIGKILL is the way to end them, and what ends them after $patience,
# if that is set.

# shellcheck disable=SC2016
chroot_mirror()
{
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' |
		awk -F'|' '$1 == "Debian" && $2 == "Debian" && !n++ { print $3 }'
}

# Becomes a shell with the script $1, the first process of its own namespaces:
# it inherits orphans and waits for them.
chroot_namespaces()
{
	exec setpriv --pdeathsig KILL timeout -s KILL "${patience:-0}" \
		setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private \
		bash -euc "$1"$'\n''exit' chroot "${@:2}" </dev/null
}

# shellcheck disable=SC2016
chroot_into='
	root=$1
	shift
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
	chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"'

chroot_change()
{
	chroot_namespaces "$chroot_into" "$@"
}

# shellcheck disable=SC2016
chroot_enter()
{
	local root=$1 work=$2
	shift 2

	chroot_namespaces '
		mount --bind "$1" "$1"
		mount -o remount,bind,ro "$1"
		mount --bind "$2" "$1/tmp"
		shift 2
		'"$chroot_into" "$root" "$work" "$root" "$@"
}

# shellcheck disable=SC2016
chroot_make()
{
	local release=$1 root=$2 mirror http=auto https=auto

	mirror=$(chroot_mirror)
	if [ -z "$mirror" ]; then
		echo "the apt of this machine has no Debian mirror"
		exit 1
	fi
	eval "$(apt-config shell http Acquire::http::Proxy https Acquire::https::Proxy)"
	[ "$http" = auto ] || export http_proxy=$http
	[ "$https" = auto ] || export https_proxy=$https
	chroot_namespaces '
		mount -t proc proc /proc
		rm -rf "$2.part"
		mkdir -p "$2.part"
		debootstrap --variant=minbase --include=ca-certificates "$1" "$2.part" "$3"
		cd "$2.part"
		apt-config dump | grep -E "^Acquire::(https?::.*Proxy|Check-|Retries)" >etc/apt/apt.conf.d/90host || :
		echo "Acquire::Languages \"none\";" >etc/apt/apt.conf.d/91small
		echo "APT::Install-Recommends \"false\";" >>etc/apt/apt.conf.d/91small
		printf "path-exclude /usr/share/%s/*\n" doc man locale >etc/dpkg/dpkg.cfg.d/small
		echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/fast
		# no service starts here
		printf "#!/bin/sh\nexit 101\n" >usr/sbin/policy-rc.d
		chmod 755 usr/sbin/policy-rc.d
		chroot . useradd --create-home tester
		mv "$2.part" "$2"' "$release" "$root" "$mirror"
}

# The server as the older release packages it, and of its development package
# the files only: the compiler that it asks for would double the chroot.
# shellcheck disable=SC2016
chroot_older()
{
	local root=$1 release=$2 major=$3

	[ ! -e "$root/root/has-$major" ] || exit 0
	chroot_change "$root" bash -euc '
		sed "s/^\(deb [^ ]* \)[^ ]*/\1$1/" /etc/apt/sources.list >"/etc/apt/sources.list.d/$1.list"
		printf "Package: *\nPin: release n=%s\nPin-Priority: 100\n" "$1" >"/etc/apt/preferences.d/$1"
		apt-get -q -y update
		apt-get -q -y install "postgresql-$2"
		cd /root
		apt-get -q download "postgresql-server-dev-$2"
		dpkg -x "postgresql-server-dev-$2"_*.deb /
		rm "postgresql-server-dev-$2"_*.deb
		touch "has-$2"' - "$release" "$major"
}
