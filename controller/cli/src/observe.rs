//! Questions to the host that has a container, and what two answers say together.

use godwit_proto::{control::LookRequest, document};
use godwit_types::{Look, Usage};
use serde::de::DeserializeOwned;

use crate::{
    client::{Cluster, Control},
    error::ClientError,
};

/// Asks about one container, wherever it is now.
pub async fn look<T: DeserializeOwned>(
    cluster: &mut Cluster,
    container: &str,
    look: Look,
) -> Result<Vec<T>, ClientError> {
    let request = LookRequest {
        container: container.to_owned(),
        look: Some(document::write(&look)),
    };
    let call = async |mut control: Control| control.look(request.clone()).await;
    let documents = cluster.ask(call).await?;
    cluster.read_all(&documents)
}

/// Hundredths of one processor between two answers. A container that came to another host in
/// between counts from there.
pub fn cpu_percent(before: &Usage, now: &Usage) -> f64 {
    let millis = now.at_ms.saturating_sub(before.at_ms);
    if millis == 0 || now.cpu_ns < before.cpu_ns {
        return 0.0;
    }
    (now.cpu_ns - before.cpu_ns) as f64 / 1e6 / millis as f64 * 100.0
}

/// Hundredths of the limit.
pub fn memory_percent(usage: &Usage) -> f64 {
    match usage.memory_limit {
        0 => 0.0,
        limit => usage.memory as f64 / limit as f64 * 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_time_between_and_a_new_host_begins_anew() {
        let at = |at_ms, cpu_ns| Usage {
            at_ms,
            cpu_ns,
            memory: 1,
            memory_limit: 4,
            ..Usage::default()
        };
        let before = at(1000, 500_000_000);
        assert_eq!(cpu_percent(&before, &at(2000, 2_000_000_000)), 150.0);
        assert_eq!(cpu_percent(&before, &at(2000, 10)), 0.0);
        assert_eq!(cpu_percent(&before, &before), 0.0);
        assert_eq!(memory_percent(&before), 25.0);
        assert_eq!(memory_percent(&Usage::default()), 0.0);
    }
}
