//! The log as syslog(2) and /dev/kmsg show it.
