//! Go's templates, as Docker's `--format '{{.Name}}'` has them, over what a command prints as JSON.
//! A name is found as it is written, and in the form that Docker gives it: `created_ms` is
//! `.CreatedMs`, too.

use std::collections::HashMap;

use gtmpl::{Context, FuncError, Value};
use serde_json::Value as Json;

/// What Go writes in the place of what is not there.
const NOTHING: &str = "<no value>";

/// A template that was understood.
pub struct Template {
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`--format {text}`: {problem}")]
pub struct TemplateError {
    text: String,
    problem: String,
}

impl Template {
    /// `\t` and `\n` are what they are in a shell's `$'…'`; `table ` in front changes nothing.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        let text = text.strip_prefix("table ").unwrap_or(text);
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let template = Self { text };
        template.parse().map(drop)?;
        Ok(template)
    }

    /// What it makes of this value.
    pub fn render(&self, value: &Json) -> Result<String, TemplateError> {
        let context = Context::from(convert(value));
        let rendered = self.parse()?.render(&context);
        let rendered = rendered.map_err(|error| self.wrong(error.to_string()))?;
        match rendered.contains(NOTHING) {
            true => Err(self.wrong("it names what is not there".to_owned())),
            false => Ok(rendered),
        }
    }

    fn parse(&self) -> Result<gtmpl::Template, TemplateError> {
        let mut template = gtmpl::Template::default();
        template.add_func("json", json);
        template.add_func("upper", |of| {
            text(of).map(|text| text.to_uppercase().into())
        });
        template.add_func("lower", |of| {
            text(of).map(|text| text.to_lowercase().into())
        });
        template.add_func("join", join);
        template.add_func("split", split);
        let parsed = template.parse(self.text.as_str());
        parsed.map_err(|error| self.wrong(error.to_string()))?;
        Ok(template)
    }

    fn wrong(&self, problem: String) -> TemplateError {
        TemplateError {
            text: self.text.escape_debug().to_string(),
            problem,
        }
    }
}

fn text(of: &[Value]) -> Result<String, FuncError> {
    match of {
        [Value::String(text)] => Ok(text.clone()),
        [other] => Ok(other.to_string()),
        _ => Err(FuncError::ExactlyXArgs("this function".into(), 1)),
    }
}

fn json(of: &[Value]) -> Result<Value, FuncError> {
    let [value] = of else {
        return Err(FuncError::ExactlyXArgs("json".into(), 1));
    };
    Ok(back(value).to_string().into())
}

fn join(of: &[Value]) -> Result<Value, FuncError> {
    let [Value::Array(parts), Value::String(between)] = of else {
        return Err(FuncError::ExactlyXArgs("join".into(), 2));
    };
    let parts: Vec<String> = parts
        .iter()
        .map(|part| text(std::slice::from_ref(part)))
        .collect::<Result<_, _>>()?;
    Ok(parts.join(between).into())
}

fn split(of: &[Value]) -> Result<Value, FuncError> {
    let [Value::String(whole), Value::String(between)] = of else {
        return Err(FuncError::ExactlyXArgs("split".into(), 2));
    };
    let parts = whole.split(between.as_str());
    Ok(Value::Array(parts.map(Value::from).collect()))
}

fn convert(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::from(number),
            (_, Some(number)) => Value::from(number),
            _ => Value::from(number.as_f64().unwrap_or(0.0)),
        },
        Json::String(text) => Value::from(text.clone()),
        Json::Array(items) => Value::Array(items.iter().map(convert).collect()),
        Json::Object(fields) => {
            let mut all: HashMap<String, Value> = HashMap::new();
            for (name, value) in fields {
                let docker = camel(name);
                if docker != *name && !fields.contains_key(&docker) {
                    all.insert(docker, convert(value));
                }
                all.insert(name.clone(), convert(value));
            }
            Value::Map(all)
        }
    }
}

/// As it was before [`convert`]: without the names that were added.
fn back(value: &Value) -> Json {
    match value {
        Value::Bool(yes) => Json::from(*yes),
        Value::String(text) => Json::from(text.clone()),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Json::from(number),
            (_, Some(number), _) => Json::from(number),
            (_, _, number) => number.map_or(Json::Null, Json::from),
        },
        Value::Array(items) => items.iter().map(back).collect(),
        Value::Map(fields) | Value::Object(fields) => {
            let mut names: Vec<_> = fields.keys().collect();
            names.sort();
            let added: Vec<String> = names
                .iter()
                .map(|name| camel(name))
                .zip(&names)
                .filter(|(docker, name)| docker != **name)
                .map(|(docker, _)| docker)
                .collect();
            names
                .into_iter()
                .filter(|name| !added.contains(name))
                .map(|name| (name.clone(), back(&fields[name])))
                .collect()
        }
        _ => Json::Null,
    }
}

/// `created_ms` as `CreatedMs`. A name that has capitals, or is no name, stays.
fn camel(name: &str) -> String {
    if name.is_empty()
        || name
            .bytes()
            .any(|b| !matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    {
        return name.to_owned();
    }
    name.split('_')
        .map(|part| {
            let mut letters = part.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(template: &str) -> Result<String, TemplateError> {
        let value = json!({
            "name": "web",
            "created_ms": 5,
            "State": {"Running": true, "Pid": 7},
            "env": ["A=1", "B=2"],
            "ports": {"80/tcp": 8080},
        });
        Template::new(template)?.render(&value)
    }

    #[test]
    fn fields_are_found_by_both_names() {
        assert_eq!(
            of("{{.name}} {{.Name}}\\t{{.CreatedMs}}").unwrap(),
            "web web\t5"
        );
        assert_eq!(of("{{.State.Pid}}").unwrap(), "7");
        assert_eq!(
            of("{{if .State.Running}}up{{else}}down{{end}}").unwrap(),
            "up"
        );
        assert_eq!(of("{{range .Env}}[{{.}}]{{end}}").unwrap(), "[A=1][B=2]");
        assert_eq!(of("{{index .Ports \"80/tcp\"}}").unwrap(), "8080");
        assert_eq!(of("{{join .env \",\"}}").unwrap(), "A=1,B=2");
        assert_eq!(of("{{upper .name}} {{len .env}}").unwrap(), "WEB 2");
        assert_eq!(
            of("{{json .State}}").unwrap(),
            r#"{"Pid":7,"Running":true}"#
        );
        assert_eq!(of("{{json .ports}}").unwrap(), r#"{"80/tcp":8080}"#);
    }

    #[test]
    fn what_is_no_template_or_names_nothing_is_refused() {
        for wrong in ["{{", "{{.name", "{{nonsense .name}}", "{{.Nothing}}"] {
            let said = of(wrong).unwrap_err().to_string();
            assert!(said.contains("--format"), "{said}");
        }
    }
}
