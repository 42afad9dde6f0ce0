//! A container's ports of this host over its life here.

use godwit_types::{ContainerId, ContainerSpec, InstanceState};

use super::{Result, Runtime};

impl Runtime {
    /// Keeps its ports for a container that is about to be here. Those of containers that have ended
    /// are free.
    pub(super) async fn reserve_ports(&self, id: &ContainerId, spec: &ContainerSpec) -> Result<()> {
        let published = &spec.options.ports.published;
        if published.is_empty() {
            return Ok(());
        }
        self.free_ports().await;
        Ok(self.networks().reserve(id, published)?)
    }

    /// Whether it could have its ports here.
    pub(super) async fn check_ports(&self, spec: &ContainerSpec) -> Result<()> {
        let published = &spec.options.ports.published;
        if published.is_empty() {
            return Ok(());
        }
        self.free_ports().await;
        Ok(self.networks().check_ports(published)?)
    }

    async fn free_ports(&self) {
        for holder in self.networks().holders_of_ports() {
            if let Ok(InstanceState::Exited { .. } | InstanceState::Lost { .. }) =
                self.state(&holder).await
                && let Err(error) = self.networks().unpublish(&holder).await
            {
                tracing::warn!(container = holder.short(), %error, "ports not freed");
            }
        }
    }

    /// Its ports lead to it.
    pub(super) async fn publish(&self, id: &ContainerId, spec: &ContainerSpec) -> Result<()> {
        let published = &spec.options.ports.published;
        match &spec.network {
            Some(attachment) if !published.is_empty() => {
                Ok(self.networks().publish(id, attachment, published).await?)
            }
            _ => Ok(()),
        }
    }

    /// They lead nowhere any more.
    pub(super) async fn unpublish(&self, id: &ContainerId) -> Result<()> {
        let published = self
            .spec(id)
            .is_ok_and(|spec| !spec.options.ports.published.is_empty());
        match published {
            true => Ok(self.networks().unpublish(id).await?),
            false => Ok(()),
        }
    }
}
