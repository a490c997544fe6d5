//! What tailscaled's local API answers to `whois`: of all it tells, one name.

use serde::Deserialize;

#[derive(Deserialize)]
struct Whois {
    #[serde(rename = "UserProfile")]
    user: User,
    #[serde(rename = "Node", default)]
    node: Node,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "LoginName")]
    login: String,
}

#[derive(Deserialize, Default)]
struct Node {
    #[serde(rename = "Tags", default)]
    tags: Option<Vec<String>>,
}

/// The login of the user in such an answer. A tagged machine is nobody's: its name is empty.
pub(crate) fn tailnet_login(answer: &[u8]) -> Option<String> {
    let found: Whois = serde_json::from_slice(answer).ok()?;
    Some(if found.node.tags.is_some_and(|tags| !tags.is_empty()) { String::new() } else { found.user.login })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_and_a_tagged_machine_has_none() {
        let answer = br#"{"Node":{"Name":"x"},"UserProfile":{"ID":1,"LoginName":"ada@example.org"},"CapMap":null}"#;
        assert_eq!(tailnet_login(answer).as_deref(), Some("ada@example.org"));
        let tagged = br#"{"Node":{"Tags":["tag:ci"]},"UserProfile":{"LoginName":"tagged-devices"}}"#;
        assert_eq!(tailnet_login(tagged).as_deref(), Some(""));
        assert_eq!(tailnet_login(b"{}"), None);
    }
}
