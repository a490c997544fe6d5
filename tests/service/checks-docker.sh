# Containers behind the unit that alone speaks to the engine. The engine is this host's, which does not see the machine's
# folders: so the profile shows and keeps none. Its socket inside has the rights of a distribution's.

engine=/run/docker.sock

# busybox as an image; by its label tests/engine.sh removes it, and what is made of it.
import() { # NAME
  local root=$work/image applet
  mkdir -p "$root/bin"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for applet in sh id cat ls touch; do ln -sf busybox "$root/bin/$applet"; done
  tar -C "$root" -c . | curl -sSf -X POST -T - --unix-socket $engine -o /dev/null \
    "http://engine/v1.41/images/create?fromSrc=-&repo=${1%:*}&tag=${1#*:}&changes=LABEL%20io.vambrace.test=1"
}
# The machine's own socket of the engine, for its group alone.
offer() {
  inm groupadd --force --system docker
  socat -t 60 "UNIX-LISTEN:/proc/$leader/root/run/docker.sock,fork,mode=0600" UNIX-CONNECT:$engine 2>/dev/null &
  way=$!
  eventually inm test -S /run/docker.sock
  inm chgrp docker /run/docker.sock
  inm chmod 660 /run/docker.sock
}
withdraw() {
  inm systemctl disable --now vambrace-runner-docker.service
  kill $way
  inm rm -f /run/docker.sock
  # Which runners there are is asked once.
  inm systemctl stop vambrace.service
  settle
}

containers_run_behind_the_unit_of_the_docker_runner_and_the_gateway_has_no_way_to_the_engine() {
  local image=vambrace-test-service:$$ said
  curl -sf -o /dev/null --unix-socket $engine http://engine/_ping ||
    { echo "no container engine answers: tests/engine.sh tests/service.sh starts one"; return 1; }
  import "$image"
  settled
  offer
  trap withdraw EXIT
  configure '[profiles.contained]' 'backend = "docker"' "image = \"$image\"" 'workspace_access = "none"'
  inm systemctl enable --now vambrace-runner-docker.service
  inm systemctl restart vambrace.service
  inm vambrace status | says 'docker runner *ready, pid'
  said=$(inm vambrace exec --profile contained --json -- sh -c 'cat /etc/shadow; touch /bin/new; ls /; id -u' || :)
  says '"tier": "container"' <<<"$said"
  says '"backend": "docker"' <<<"$said"
  says '"exitCode": 0' <<<"$said"
  says 'Read-only file system' <<<"$said"
  inm vambrace exec --profile contained -- sh -c 'echo into it; cat' <<<'and through it' | says 'and through it'
  inm systemctl kill --signal KILL vambrace-runner-docker.service
  eventually inm vambrace exec --profile contained -- id
  # Who is not of the engine's group does not speak to it, and the gateway's user is not.
  not inm setpriv --reuid vambrace --regid vambrace --init-groups curl -sf --unix-socket /run/docker.sock http://engine/_ping
  inm vambrace doctor | says 'vambrace-runner-docker.service *ok'
}
