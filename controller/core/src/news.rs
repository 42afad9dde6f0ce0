//! What an agent's report says that the state does not know.

use godwit_types::{HostName, InstanceReport};

use crate::{apply::is_news, command::Command, state::State};

/// The commands that write it down. `instances`: every instance of `host`; one that is not
/// listed is not there.
pub fn news(state: &State, host: &HostName, instances: &[InstanceReport]) -> Vec<Command> {
    let mut commands = Vec::new();
    for container in state.owned_by(host) {
        let instance = instances
            .iter()
            .find(|i| i.container == container.id && i.generation == container.generation)
            .map(|instance| (&instance.state, &instance.details));
        let (instance, details) = instance.unzip();
        let generation = container.generation;
        if is_news(state, host, &container.id, generation, instance, details) {
            commands.push(Command::ReportInstance {
                host: host.clone(),
                container: container.id.clone(),
                generation: container.generation,
                state: instance.cloned(),
                details: details.cloned(),
            });
        }
    }
    commands
}
