//! How an error is told: what failed, what caused it, what to do next.

use godwit_cli::hint::hint;
use godwit_types::{HostImageNews, ImageNews};

use super::{Closed, note};

/// Reports the error that ended the program and says what to exit with.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Closed>() {
        return 0;
    }
    report(error);
    1
}

/// Reports what hosts failed at, and says what to exit with.
pub fn of_hosts(results: &[HostImageNews]) -> u8 {
    let mut code = 0;
    for result in results {
        if let ImageNews::Failed { failure } = &result.news {
            report(&anyhow::Error::new(failure.clone()));
            code = 1;
        }
    }
    code
}

/// `error:`, `caused by:` and `hint:` on standard error.
pub fn report(error: &anyhow::Error) {
    for line in lines(error) {
        note(line);
    }
}

fn lines(error: &anyhow::Error) -> Vec<String> {
    let mut lines = vec![format!("error: {}", shown(&error.to_string()))];
    // The wire's layers repeat each other.
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !last.contains(&text) {
            lines.push(format!("caused by: {}", shown(&text)));
        }
        last = text;
    }
    if let Some(hint) = hint(error.as_ref()) {
        lines.push(format!("hint: {hint}"));
    }
    lines
}

/// Without control characters: an error may quote what a user or an image said.
pub fn shown(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use godwit_cli::error::ClientError;
    use godwit_proto::failure;
    use godwit_types::Refusal;

    use super::*;

    #[test]
    fn an_error_its_causes_and_its_hint_have_a_line_each() {
        let refused = failure::refused(Refusal::UnknownHost { host: "h9".into() });
        let error = anyhow::Error::new(ClientError::of_status("m1", refused))
            .context("`redis` was not moved");
        assert_eq!(
            lines(&error),
            [
                "error: `redis` was not moved",
                "caused by: no host `h9`",
                "hint: `godwit host ls` lists the hosts",
            ]
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
