# shellcheck shell=bash
# Debian's arm64 packages on a Debian machine of any architecture: package lists of our own in the
# cache, so that the machine's architectures and its apt stay as they are. Sourced behind lib.sh.
#
# The guest's release is Debian 12; the sources are the machine's own, with its release replaced.

linnet_guest_release=bookworm
# shellcheck disable=SC1091
codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")

# Succeeds on a Debian with apt and dpkg-deb.
linnet_is_debian() {
	[ -e /etc/debian_version ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null
}

# Prints the machine's own deb822 or one-line entries for its release, to derive others from.
own_sources() { # deb822|oneline
	local file
	for file in /etc/apt/sources.list.d/*.sources; do
		[ "$1" = deb822 ] && [ -f "$file" ] || continue
		awk -v name="$codename" 'BEGIN { RS = ""; ORS = "\n\n" }
			$0 ~ "(^|\n)Suites:[^\n]*[ \t]" name "(-security|-updates)?([ \t\n]|$)"' "$file"
	done
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ "$1" = oneline ] && [ -f "$file" ] || continue
		awk -v name="$codename" '$1 == "deb" && $0 ~ "[ \t]" name "(-security|-updates)?[ \t]"' "$file"
	done
}

# apt_arm64 apt-get|apt-cache WORD...: with nothing installed, for arm64.
apt_arm64() {
	local command=$1
	shift
	"$command" -o "Dir::State=$linnet_cache/apt" -o "Dir::State::Lists=$linnet_cache/apt/lists" \
		-o "Dir::State::status=$linnet_cache/apt/status" -o Dir::Etc::sourcelist=/dev/null \
		-o "Dir::Etc::sourceparts=$linnet_cache/apt/sources" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
		-o "Dir::Cache::Archives=$linnet_cache/apt/archives" \
		-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= "$@"
}

apt_ready=0
# Makes the lists: apt_arm64 works behind this. Once in a script.
prepare_apt() {
	[ "$apt_ready" = 0 ] || return 0
	linnet_is_debian || linnet_die "fetching arm64 programs needs Debian's apt"
	[ -n "$codename" ] || linnet_die "this Debian names no release: cannot derive package sources"
	mkdir -p "$linnet_cache"/apt/{lists/partial,sources,archives/partial}
	: >"$linnet_cache/apt/status"
	rm -f "$linnet_cache"/apt/sources/*
	local deb822 oneline
	deb822=$(own_sources deb822)
	oneline=$(own_sources oneline)
	[ -n "$deb822$oneline" ] || linnet_die "found no package source for $codename on this machine"
	if [ -n "$deb822" ]; then
		echo "$deb822" | sed "/^Architectures:/d; /^Suites:/s/\\b$codename\\b/$linnet_guest_release/g" >"$linnet_cache/apt/sources/own.sources"
	else
		echo "$oneline" | sed "s/\\(arch=\\)[^] ]*/\\1arm64/; s/\\b$codename\\b/$linnet_guest_release/" >"$linnet_cache/apt/sources/own.list"
	fi
	apt_arm64 apt-get update -qq >&2
	apt_ready=1
}
