//! An image's configuration as a document to be edited. What we know nothing of stays as it is.

use godwit_types::Digest;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::image::config::{MAX_LAYERS, Platform, digest};

/// Why a document could not be edited.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("it is no JSON object")]
    Json(#[source] serde_json::Error),
    #[error("its `{0}` has another form than it should")]
    Form(&'static str),
    #[error("it has more than {limit} layers")]
    Layers { limit: usize },
}

/// A line of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// RFC 3339.
    pub created: String,
    pub created_by: String,
    pub comment: String,
    pub author: String,
}

/// A time in seconds since 1970 as images write it; None: now.
pub fn rfc3339(seconds: Option<i64>) -> String {
    let time = match seconds {
        Some(seconds) => OffsetDateTime::from_unix_timestamp(seconds),
        None => Ok(OffsetDateTime::now_utc()),
    };
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(Map<String, Value>);

impl Document {
    /// Of an image with nothing in it, for this host's platform.
    pub fn empty() -> Self {
        let here = Platform::here();
        let Value::Object(map) = json!({
            "architecture": here.architecture,
            "os": here.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [],
        }) else {
            unreachable!("it is written as an object above")
        };
        Self(map)
    }

    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let mut map: Map<String, Value> =
            serde_json::from_slice(json).map_err(DocumentError::Json)?;
        // `null` stands for nothing, as Go writes it.
        for key in ["config", "history"] {
            if map.get(key).is_none_or(Value::is_null) {
                let nothing = if key == "config" {
                    json!({})
                } else {
                    json!([])
                };
                map.insert(key.to_owned(), nothing);
            }
        }
        let document = Self(map);
        if !document.0["config"].is_object() {
            return Err(DocumentError::Form("config"));
        }
        if !document.0["history"].is_array() {
            return Err(DocumentError::Form("history"));
        }
        document.diff_ids()?;
        Ok(document)
    }

    /// The layers, bottom first.
    pub fn diff_ids(&self) -> Result<Vec<Digest>, DocumentError> {
        let form = DocumentError::Form("rootfs.diff_ids");
        match self
            .0
            .get("rootfs")
            .and_then(|rootfs| rootfs.get("diff_ids"))
        {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(ids) => serde_json::from_value(ids.clone()).map_err(|_| form),
        }
    }

    /// What is run and how: `Cmd`, `Env` and their like.
    pub fn config(&self) -> &Map<String, Value> {
        self.0["config"]
            .as_object()
            .expect("checked when it was parsed")
    }

    pub fn config_mut(&mut self) -> &mut Map<String, Value> {
        self.0["config"]
            .as_object_mut()
            .expect("checked when it was parsed")
    }

    /// A text of `config`; empty when there is none.
    pub fn text(&self, key: &str) -> &str {
        self.config().get(key).and_then(Value::as_str).unwrap_or("")
    }

    /// A list of texts of `config`.
    pub fn list(&self, key: &str) -> Vec<String> {
        let list = self.config().get(key).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    }

    pub fn set(&mut self, key: &str, value: Value) {
        self.config_mut().insert(key.to_owned(), value);
    }

    /// Sets a member of an object in `config`, such as `Labels`.
    pub fn set_in(&mut self, key: &str, member: &str, value: Value) {
        let map = self
            .config_mut()
            .entry(key)
            .or_insert_with(|| Value::Object(Map::new()));
        if !map.is_object() {
            *map = Value::Object(Map::new());
        }
        if let Value::Object(map) = map {
            map.insert(member.to_owned(), value);
        }
    }

    /// `KEY=value`, in the place of one of that name or last.
    pub fn set_env(&mut self, key: &str, value: &str) {
        let mut env = self.list("Env");
        let entry = format!("{key}={value}");
        let same = |old: &&mut String| old.split('=').next() == Some(key);
        match env.iter_mut().find(same) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
        self.set("Env", json!(env));
    }

    /// Adds a layer on top.
    pub fn push_layer(&mut self, layer: &Digest, event: &Event) -> Result<(), DocumentError> {
        let mut layers = self.diff_ids()?;
        if layers.len() >= MAX_LAYERS {
            return Err(DocumentError::Layers { limit: MAX_LAYERS });
        }
        layers.push(layer.clone());
        self.0.insert(
            "rootfs".to_owned(),
            json!({"type": "layers", "diff_ids": layers}),
        );
        self.push_event(event, false);
        Ok(())
    }

    /// Adds to the history what changed no file.
    pub fn push_note(&mut self, event: &Event) {
        self.push_event(event, true);
    }

    fn push_event(&mut self, event: &Event, empty: bool) {
        let mut line = Map::new();
        for (key, value) in [
            ("created", &event.created),
            ("created_by", &event.created_by),
            ("author", &event.author),
            ("comment", &event.comment),
        ] {
            if !value.is_empty() {
                line.insert(key.to_owned(), json!(value));
            }
        }
        if empty {
            line.insert("empty_layer".to_owned(), json!(true));
        }
        if let Some(history) = self.0["history"].as_array_mut() {
            history.push(Value::Object(line));
        }
        if !event.created.is_empty() {
            self.0.insert("created".to_owned(), json!(event.created));
        }
    }

    pub fn set_author(&mut self, author: &str) {
        self.0.insert("author".to_owned(), json!(author));
    }

    /// As it is stored: the same document gives the same bytes.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a map of JSON values is JSON")
    }

    /// The image's id.
    pub fn id(&self) -> Digest {
        digest(&self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_stays_and_null_is_nothing() {
        let text = br#"{"os":"linux","config":null,"history":null,"x":[1],
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let mut document = Document::parse(text).unwrap();
        document.set_env("A", "1");
        document.set_env("B", "2");
        document.set_env("A", "3");
        assert_eq!(document.list("Env"), ["A=3", "B=2"]);
        let layer = Digest::from_sha256([7; 32]);
        let event = Event {
            created: "2026-01-01T00:00:00Z".into(),
            created_by: "RUN x".into(),
            ..Event::default()
        };
        document.push_layer(&layer, &event).unwrap();
        document.push_note(&event);
        let value: Value = serde_json::from_slice(&document.bytes()).unwrap();
        assert_eq!(value["x"], json!([1]));
        assert_eq!(value["created"], "2026-01-01T00:00:00Z");
        assert_eq!(value["history"][1]["empty_layer"], true);
        assert_eq!(document.diff_ids().unwrap(), [layer]);
    }

    #[test]
    fn a_document_of_another_form_is_refused() {
        for bad in [
            "[]",
            r#"{"config":3}"#,
            r#"{"history":{}}"#,
            r#"{"rootfs":{"diff_ids":["sha256:x"]}}"#,
        ] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
