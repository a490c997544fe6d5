# Distributions with file triggers have done the first three already; done twice they change nothing.
systemd-sysusers vambrace.conf || :
systemd-tmpfiles --create vambrace.conf || :
journalctl --update-catalog >/dev/null 2>&1 || :
systemctl daemon-reload >/dev/null 2>&1 || :
# Whether a service of a new package is on is the distribution's policy (systemd.preset(5)), not ours.
if [ "$1" -eq 1 ]; then
	systemctl --no-reload preset vambrace.socket vambrace.service vambrace-runner.service vambrace-egress.socket \
		>/dev/null 2>&1 || :
fi
