systemctl daemon-reload >/dev/null 2>&1 || :
journalctl --update-catalog >/dev/null 2>&1 || :
# After an upgrade what ran runs on, with the new program; the doors are systemd's and stay open meanwhile.
if [ "$1" -ge 1 ]; then
	systemctl try-restart vambrace-runner.service vambrace-runner-docker.service vambrace.service >/dev/null 2>&1 || :
fi
