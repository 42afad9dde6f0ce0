//! Ids, names and times: what the pure core gets with its commands.

use std::time::{SystemTime, UNIX_EPOCH};

use godwit_core::State;
use godwit_types::{ContainerId, ContainerName, MigrationId, OperationId, VolumeId};

const ADJECTIVES: [&str; 24] = [
    "brave", "brisk", "calm", "clever", "dapper", "eager", "fleet", "gentle", "golden", "hardy",
    "keen", "lively", "lofty", "merry", "nimble", "patient", "quiet", "rapid", "steady", "swift",
    "tidy", "wary", "wild", "wise",
];
const BIRDS: [&str; 24] = [
    "avocet",
    "bittern",
    "curlew",
    "dunlin",
    "egret",
    "fulmar",
    "gannet",
    "godwit",
    "heron",
    "ibis",
    "knot",
    "lapwing",
    "merlin",
    "osprey",
    "petrel",
    "plover",
    "rail",
    "ruff",
    "snipe",
    "stilt",
    "tern",
    "turnstone",
    "whimbrel",
    "wren",
];

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    bytes
}

pub fn container_id() -> ContainerId {
    ContainerId::from_bytes(random())
}

pub fn migration_id() -> MigrationId {
    MigrationId::from_bytes(random())
}

pub fn volume_id() -> VolumeId {
    VolumeId::from_bytes(random())
}

/// For commands that no other leader repeats.
pub fn operation_id() -> OperationId {
    OperationId::from_bytes(random())
}

/// Of a group that begins.
pub fn group_id() -> String {
    random::<16>().iter().map(|b| format!("{b:02x}")).collect()
}

/// A name that no container has yet.
pub fn container_name(state: &State) -> ContainerName {
    loop {
        let [a, b, c, d] = random::<4>();
        let adjective = ADJECTIVES[usize::from(a) % ADJECTIVES.len()];
        let bird = BIRDS[usize::from(b) % BIRDS.len()];
        let number = u16::from_le_bytes([c, d]) % 1000;
        let name = ContainerName::new(format!("{adjective}-{bird}-{number}"))
            .expect("letters, digits and dashes");
        if state.containers.values().all(|c| c.spec.name != name) {
            return name;
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |passed| passed.as_millis() as u64)
}
