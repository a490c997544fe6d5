//! vambrace.toml(5), from the schema of the very types that read the file.

use super::Page;
use crate::config;
use serde_json::Value;

pub(super) fn page() -> String {
    let mut page = Page::new("vambrace.toml", "5", "configuration of the Vambrace gateway");
    page.section("DESCRIPTION");
    page.text(
        "A file in TOML. Every key is optional and there need be no file; a key or a word that is not described here is \
         an error. `vambrace config check` says what is wrong with a file, with line and column, and `vambrace config \
         show` what is in force. Secrets never stand in it.",
    );
    page.text(
        "The service reads `/etc/vambrace/vambrace.toml`, and reads it again at `systemctl reload vambrace`. A gateway \
         that a user starts reads `$XDG_CONFIG_HOME/vambrace/vambrace.toml`. `--config` and `VAMBRACE_CONFIG` name \
         another.",
    );
    page.text(
        "Settings of a sandbox come in layers: what an agent does not say, `[defaults.sandbox]` says, and what that does \
         not, is built in. `vambrace sandbox explain` shows where each comes from.",
    );
    let schema = config::schema();
    Walk { schema: &schema, page: &mut page, described: Vec::new() }.tables(&schema, "");
    page.section("EXAMPLE");
    page.example(
        "[gateway]\nbind = \"loopback\"\nport = 18789\n\n[defaults.sandbox]\nnetwork = \"none\"\nlimits = { memory = \
         \"512M\", timeout = \"60s\" }\n\n[agents.builder]\nworkspace = \"/srv/agents/builder\"\nsandbox = { network = \
         \"allowlist\", allow_domains = [\"crates.io\"] }\nexec = { sandbox_mode = \"allowlist\", allow = \
         [\"/usr/bin/git\"] }",
    );
    page.section("SEE ALSO");
    page.text("vambrace(1), vambrace-config(1), vambrace(7)");
    page.finish()
}

struct Walk<'a> {
    schema: &'a Value,
    page: &'a mut Page,
    /// Definitions whose keys were described, with the table where.
    described: Vec<(String, String)>,
}

impl<'a> Walk<'a> {
    /// The tables below a table.
    fn tables(&mut self, of: &'a Value, path: &str) {
        let Some(properties) = of["properties"].as_object() else { return };
        for (key, property) in properties {
            let named = if property["additionalProperties"].is_object() { ".NAME" } else { "" };
            let place = format!("{}{key}{named}", if path.is_empty() { String::new() } else { format!("{path}.") });
            let reference = if named.is_empty() { property } else { &property["additionalProperties"] };
            let Some((name, definition)) = self.definition(reference) else { continue };
            if definition["properties"].is_object() {
                self.table(&place, name, definition, property);
            }
        }
    }

    /// A table: what it is, its keys, the tables below it.
    fn table(&mut self, place: &str, name: &str, definition: &'a Value, property: &'a Value) {
        self.page.section(&format!("[{place}]"));
        let text = property["description"].as_str().or(definition["description"].as_str());
        self.page.text(text.unwrap_or_default());
        if let Some((_, first)) = self.described.iter().find(|(known, _)| known == name) {
            self.page.text(&format!("Its keys are those of `[{first}]`."));
            return;
        }
        self.described.push((name.to_owned(), place.to_owned()));
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            let below = self.definition(property).map(|(_, definition)| definition);
            if below.is_some_and(|definition| definition["properties"].is_object()) {
                continue;
            }
            let text = property["description"].as_str().or(below.and_then(|d| d["description"].as_str()));
            self.page.item(&format!("{key} = {}", self.kind(property)), text.unwrap_or_default());
            for (word, meaning) in self.words(property) {
                if let Some(meaning) = meaning {
                    self.page.text(&format!("`\"{word}\"`: {meaning}"));
                }
            }
        }
        self.tables(definition, place);
    }

    /// What a `$ref` leads to, also one of a choice with null.
    fn definition(&self, property: &'a Value) -> Option<(&'a str, &'a Value)> {
        let reference = property["$ref"].as_str().or_else(|| {
            let choices = property["anyOf"].as_array()?;
            choices.iter().find_map(|choice| choice["$ref"].as_str())
        })?;
        let name = reference.rsplit('/').next()?;
        let schema = self.schema;
        Some((name, &schema["$defs"][name]))
    }

    /// The words that may stand there, with their meaning where they have one.
    fn words(&self, property: &'a Value) -> Vec<(String, Option<String>)> {
        let Some((_, definition)) = self.definition(property) else { return Vec::new() };
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let plain = definition["enum"].as_array().into_iter().flatten().filter_map(|word| Some((text(word)?, None)));
        let choices = definition["oneOf"].as_array().into_iter().flatten().flat_map(|choice| {
            let several = choice["enum"].as_array().into_iter().flatten();
            let all: Vec<&Value> = several.chain([&choice["const"]]).collect();
            all.into_iter().filter_map(|word| Some((text(word)?, text(&choice["description"])))).collect::<Vec<_>>()
        });
        plain.chain(choices).collect()
    }

    /// What may stand behind the sign.
    fn kind(&self, property: &'a Value) -> String {
        let words = self.words(property);
        if !words.is_empty() {
            return words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" | ");
        }
        let kinds = property["type"].as_array();
        let first = kinds.and_then(|kinds| kinds.first()).unwrap_or(&property["type"]);
        match first.as_str() {
            Some("array") => "[\u{2026}]",
            Some("boolean") => "true | false",
            Some("integer" | "number") => "NUMBER",
            _ => "\"\u{2026}\"",
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key says what it is: by itself, or by the type of what stands there.
    #[test]
    fn no_key_lacks_its_text() {
        let schema = config::schema();
        let tables = schema["$defs"].as_object().unwrap().iter().map(|(name, table)| (name.as_str(), table));
        let mut keys = 0;
        for (name, table) in tables.chain([("the file", &schema)]) {
            for (key, property) in table["properties"].as_object().into_iter().flatten() {
                keys += 1;
                let reference = property["$ref"].as_str().or_else(|| property["anyOf"][0]["$ref"].as_str());
                let of_type = reference.and_then(|r| schema["$defs"][r.rsplit('/').next()?]["description"].as_str());
                assert!(property["description"].is_string() || of_type.is_some(), "{name}: {key}: no text");
            }
        }
        assert!(keys > 50, "only {keys} keys were looked at");
    }

    #[test]
    fn every_key_and_word_stands_on_the_page() {
        let page = page();
        for (key, property) in config::schema()["$defs"].as_object().unwrap() {
            let keys = property["properties"].as_object().into_iter().flatten().map(|(key, _)| key);
            let words = property["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for text in keys.map(String::as_str).chain(words) {
                let shown = text.replace('-', "\\-");
                assert!(page.contains(&shown), "{key}: {text}");
            }
        }
        assert!(page.contains("[agents.NAME]") && page.contains("Its keys are those of"), "{page}");
    }
}
