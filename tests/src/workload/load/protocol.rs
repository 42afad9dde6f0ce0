//! As much of Redis's protocol as the load needs.

use anyhow::{Result, bail};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Ok,
    Value(Vec<u8>),
    /// There is no such key, or Redis refused.
    Other(String),
}

impl Reply {
    pub fn shown(&self) -> String {
        match self {
            Self::Ok => "OK".into(),
            Self::Value(bytes) => format!(
                "a value of {} bytes, {:?}",
                bytes.len(),
                &bytes[..bytes.len().min(16)]
            ),
            Self::Other(text) => text.clone(),
        }
    }
}

pub fn get(to: &mut Vec<u8>, key: u64) {
    to.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n$16\r\n{key:016}\r\n").as_bytes());
}

pub fn set(to: &mut Vec<u8>, key: u64, value: &[u8]) {
    let head = format!(
        "*3\r\n$3\r\nSET\r\n$16\r\n{key:016}\r\n${}\r\n",
        value.len()
    );
    to.extend_from_slice(head.as_bytes());
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// The first reply, and how many bytes it took; none: it is not whole yet.
pub fn parse(received: &[u8]) -> Result<Option<(Reply, usize)>> {
    let Some(end) = received.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = std::str::from_utf8(&received[..end])?;
    let after = end + 2;
    if line == "+OK" {
        return Ok(Some((Reply::Ok, after)));
    }
    let Some(length) = line.strip_prefix('$') else {
        return Ok(Some((Reply::Other(line.to_owned()), after)));
    };
    let Ok(length) = length.parse::<usize>() else {
        return Ok(Some((Reply::Other(line.to_owned()), after)));
    };
    let Some(rest) = received.get(after..after + length + 2) else {
        return Ok(None);
    };
    if !rest.ends_with(b"\r\n") {
        bail!("a value of {length} bytes has no end");
    }
    let value = rest[..length].to_vec();
    Ok(Some((Reply::Value(value), after + length + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_when_all_of_it_is_there() {
        assert_eq!(parse(b"+OK\r").unwrap(), None);
        assert_eq!(parse(b"+OK\r\n+OK").unwrap(), Some((Reply::Ok, 5)));
        assert_eq!(parse(b"$5\r\nab\r\nc\r").unwrap(), None);
        let value = Reply::Value(b"ab\r\nc".to_vec());
        assert_eq!(parse(b"$5\r\nab\r\nc\r\n$").unwrap(), Some((value, 11)));
        for other in ["$-1", "-ERR no"] {
            let reply = Reply::Other(other.into());
            let line = format!("{other}\r\n");
            assert_eq!(parse(line.as_bytes()).unwrap(), Some((reply, line.len())));
        }
        assert!(parse(b"$1\r\nabc").is_err());
    }
}
