# The package goes: nothing of it runs on. The state stays.
if [ "$1" -eq 0 ]; then
	systemctl --no-reload disable --now vambrace.socket vambrace.service vambrace-runner.service \
		vambrace-runner-docker.service vambrace-egress.socket >/dev/null 2>&1 || :
fi
