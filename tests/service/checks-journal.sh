# Records in journald, as an operator reads them. The recipes are those of docs/journald.md, run as they stand there.

every_recipe_of_the_documentation_finds_what_it_says() {
  local recipe count=0
  inm vambrace exec --agent builder -- sh -c 'exit 3' || [ $? = 3 ]
  not inm vambrace exec --agent builder --profile nothere -- true
  not inm curl -sf -H 'Authorization: Bearer wrong' --json '{}' http://127.0.0.1:18789/rpc/status
  inm vambrace lockdown on
  inm vambrace lockdown off
  inm journalctl --sync
  while read -r recipe; do
    count=$((count + 1))
    echo "$recipe"
    # Something is found, and what a recipe follows is not followed here.
    [ -n "$(inm bash -c "${recipe/ -f/ --no-pager}" | grep -v '^-- No entries')" ]
  done < <(sed -n 's/^    \$ \(journalctl .*\)/\1/p' docs/journald.md | sed 's/ *#.*//')
  [ $count -ge 6 ]
}

a_record_in_journald_is_the_record_of_the_chain() {
  local seq
  inm vambrace exec --agent chained -- true
  seq=$(inm vambrace journal list --limit 50 --json | grep '"agent":"chained"' | grep exec.finished |
    sed 's/.*"seq":\([0-9]*\).*/\1/' | tail -1)
  [ -n "$seq" ]
  logged -o json VAMBRACE_SEQ="$seq" | grep '"VAMBRACE_AGENT":"chained"'
  inm vambrace journal verify
}

the_catalog_explains_a_refusal() {
  logged -x VAMBRACE_EVENT=exec.denied -n 1 | grep 'A command was refused'
}
