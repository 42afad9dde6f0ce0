//! What `ps -f` takes.

use std::str::FromStr;

use godwit_types::{ContainerView, Status};

const KEYS: &str = "name, id, status, label, host, ancestor or exited";

/// `KEY=VALUE`. Of several with one key one must fit, of several keys all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    key: String,
    value: String,
}

impl FromStr for Filter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("KEY=VALUE, the key one of {KEYS}"))?;
        let known = [
            "name", "id", "status", "label", "host", "ancestor", "exited",
        ];
        if !known.contains(&key) {
            return Err(format!("no filter `{}`: {KEYS}", key.escape_debug()));
        }
        if key == "exited" && value.parse::<i32>().is_err() {
            return Err("`exited` takes an exit code".to_owned());
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl Filter {
    /// Whether it is about containers that may have ended, as with Docker.
    pub fn is_of_ended(&self) -> bool {
        matches!(self.key.as_str(), "status" | "exited")
    }

    fn fits(&self, view: &ContainerView) -> bool {
        let value = self.value.as_str();
        match self.key.as_str() {
            "name" => view.name.as_str().contains(value),
            "id" => view.id.as_str().starts_with(value),
            "status" => word(&view.status) == value,
            "host" => view.host.as_str() == value,
            "ancestor" => {
                let image = &view.spec.image;
                image.as_str() == value
                    || (image.tag() == "latest" && image.repository() == value)
                    || view.spec.image_id.to_string() == value
            }
            "label" => {
                let labels = &view.spec.options.policy.labels;
                match value.split_once('=') {
                    Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
                    None => labels.contains_key(value),
                }
            }
            "exited" => match &view.status {
                Status::Exited { exit } => value.parse() == Ok(exit.code),
                _ => false,
            },
            _ => false,
        }
    }
}

/// The status alone.
fn word(status: &Status) -> String {
    let text = status.to_string();
    text.split(' ').next().unwrap_or_default().to_owned()
}

pub fn all_fit(filters: &[Filter], view: &ContainerView) -> bool {
    filters.iter().all(|filter| {
        let mut same = filters.iter().filter(|other| other.key == filter.key);
        // Every label must be there, as with Docker.
        if filter.key == "label" {
            filter.fits(view)
        } else {
            same.any(|other| other.fits(view))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused() {
        for bad in ["x", "colour=red", "exited=soon", ""] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
        assert!("status=exited".parse::<Filter>().unwrap().is_of_ended());
        assert!(!"name=a=b".parse::<Filter>().unwrap().is_of_ended());
    }
}
