//! The host's networks as the agent uses them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use godwit_types::{
    ContainerId, HostName, NetworkAttachment, NetworkSpec, NetworkTable, Published,
};
use rtnetlink::{Handle, new_connection};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant, sleep},
};

use super::{
    announce,
    device::{self, vxlan_name},
    dns,
    error::{NetworkError, Result},
    hold::Hold,
    masquerade, namespace,
    ports::{self, Ports},
    table::{Entries, difference, remote},
    veth,
};

/// Whether packets pass between a container and its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    Shut,
}

/// One per agent.
pub struct Networks {
    handle: Handle,
    address: Ipv4Addr,
    /// The underlay's link and its MTU.
    underlay: (u32, u32),
    namespaces: PathBuf,
    ports: Ports,
    /// By VNI. Also the lock under which a network's devices change.
    tables: Mutex<BTreeMap<u32, Known>>,
}

/// What is known of one network.
#[derive(Default)]
struct Known {
    /// The newest table, and for whom it was told.
    table: Option<(HostName, NetworkTable)>,
    /// The device's entries as they are now; None: the network is not on this host yet.
    applied: Option<(u32, Entries)>,
    names: Arc<dns::Names>,
    /// None: the network is not on this host, or somebody else serves on its gateway address.
    server: Option<dns::Server>,
}

/// How long the new place of a container may take to be told here.
const TABLE: Duration = Duration::from_millis(500);

async fn delivered(hold: Hold, link: String) -> Result<usize> {
    let what = format!("link `{link}`");
    let delivered = tokio::task::spawn_blocking(move || hold.deliver(&link)).await;
    delivered
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|source| NetworkError::Kernel {
            step: "delivering packets on",
            what,
            source,
        })
}

impl Networks {
    /// `underlay` is this host's address for VXLAN; namespaces are bound below `run`.
    pub async fn open(underlay: Ipv4Addr, run: &Path) -> Result<Self> {
        let (connection, handle, _) = new_connection().map_err(NetworkError::Netlink)?;
        tokio::spawn(connection);
        let found = device::underlay(&handle, underlay).await?;
        Ok(Self {
            handle,
            address: underlay,
            underlay: found,
            namespaces: run.join("netns"),
            ports: Ports::default(),
            tables: Mutex::default(),
        })
    }

    fn mtu(&self) -> u32 {
        device::inner_mtu(self.underlay.1)
    }

    fn netns(&self, id: &ContainerId) -> PathBuf {
        self.namespaces.join(id.short())
    }

    /// Makes a network's devices, or finds them, and applies the newest table.
    pub async fn ensure(&self, network: &NetworkSpec) -> Result<()> {
        let mut tables = self.tables.lock().await;
        let known = tables.entry(network.vni).or_default();
        if known.applied.is_some() {
            return Ok(());
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|source| NetworkError::Kernel {
            step: "switching on",
            what: "IPv4 forwarding".into(),
            source,
        })?;
        // Of a network that had this number before, and whose end was not told here.
        if !device::has_containers(&self.handle, network.vni).await? {
            device::delete(&self.handle, &vxlan_name(network.vni)).await?;
            device::delete(&self.handle, &device::bridge_name(network.vni)).await?;
        }
        device::ensure(
            &self.handle,
            network,
            self.address,
            self.underlay.0,
            self.mtu(),
        )
        .await?;
        masquerade::ensure(network)?;
        let vxlan = device::expect_index(&self.handle, &vxlan_name(network.vni)).await?;
        // Entries of an agent before this one are set again or, when they are not in the table
        // any more, stay until their address is used again: harmless, nobody sends there.
        if known.server.is_none() {
            let gateway = network.subnet.gateway();
            match dns::start(gateway, known.names.clone()).await {
                Ok(server) => known.server = Some(server),
                Err(error) => tracing::warn!(
                    network = %network.name, %gateway, %error,
                    "no name server: names of containers are not found on this host"
                ),
            }
        }
        known.applied = Some((vxlan, Entries::new()));
        self.bring_up_to_date(network.vni, known).await
    }

    /// Has exactly this table. Ignored when it is older than the one applied; remembered when
    /// the network is not on this host.
    pub async fn apply(&self, me: &HostName, table: &NetworkTable) -> Result<()> {
        let mut tables = self.tables.lock().await;
        let known = tables.entry(table.network.vni).or_default();
        if known
            .table
            .as_ref()
            .is_some_and(|(_, old)| old.version > table.version)
        {
            return Ok(());
        }
        known.names.set(table);
        known.table = Some((me.clone(), table.clone()));
        self.bring_up_to_date(table.network.vni, known).await
    }

    async fn bring_up_to_date(&self, vni: u32, known: &mut Known) -> Result<()> {
        let (Some((me, table)), Some((vxlan, applied))) = (&known.table, &mut known.applied) else {
            return Ok(());
        };
        let name = vxlan_name(vni);
        let wanted = remote(me, table);
        // Addresses that are here must never be looked for elsewhere: also those that this
        // process has not set itself.
        let local = table
            .endpoints
            .iter()
            .map(|e| e.address)
            .filter(|a| !wanted.contains_key(a));
        let change = difference(applied, &wanted);
        for address in local.chain(change.remove.iter().copied()) {
            device::remove_remote(&self.handle, &name, *vxlan, address).await?;
            applied.remove(&address);
        }
        for (address, behind) in change.set {
            device::set_remote(&self.handle, &name, *vxlan, address, behind).await?;
            applied.insert(address, behind);
        }
        Ok(())
    }

    /// Makes a container's namespace and link, or finds them. The network must be there
    /// ([`ensure`](Self::ensure)). Answers the namespace's path.
    pub async fn attach(
        &self,
        id: &ContainerId,
        attachment: &NetworkAttachment,
        gate: Gate,
    ) -> Result<PathBuf> {
        let netns = self.attach_none(id).await?;
        let name = veth::link_name(id);
        if device::index(&self.handle, &name).await?.is_none() {
            veth::create(&self.handle, id, attachment, &netns, self.mtu()).await?;
        }
        self.gate(id, gate).await?;
        Ok(netns)
    }

    /// Asked for a container's questions that are not about its network. None: this host's.
    pub async fn give_resolvers(&self, attachment: &NetworkAttachment, resolvers: &[IpAddr]) {
        let mut tables = self.tables.lock().await;
        let known = tables.entry(attachment.network.vni).or_default();
        known.names.give(attachment.address, resolvers);
    }

    /// A namespace with nothing but loopback.
    pub async fn attach_none(&self, id: &ContainerId) -> Result<PathBuf> {
        let netns = self.netns(id);
        if !namespace::exists(&netns) {
            namespace::create(&netns)?;
        }
        Ok(netns)
    }

    /// The namespace of a container that another one joins.
    pub fn namespace_of(&self, id: &ContainerId) -> Result<PathBuf> {
        let netns = self.netns(id);
        if namespace::exists(&netns) {
            Ok(netns)
        } else {
            Err(NetworkError::NoNamespace(id.short().to_owned()))
        }
    }

    /// Keeps ports of this host for a container, or says which is taken.
    pub fn reserve(&self, id: &ContainerId, ports: &[Published]) -> Result<()> {
        self.ports.reserve(id, ports)
    }

    /// Whether they could be reserved.
    pub fn check_ports(&self, ports: &[Published]) -> Result<()> {
        ports::check(ports)
    }

    /// From now on its ports of this host lead to the container.
    pub async fn publish(
        &self,
        id: &ContainerId,
        attachment: &NetworkAttachment,
        published: &[Published],
    ) -> Result<()> {
        let (id, attachment, published) = (id.clone(), attachment.clone(), published.to_vec());
        let work = move || ports::publish(&id, &attachment, &published);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Who keeps ports.
    pub fn holders_of_ports(&self) -> Vec<ContainerId> {
        self.ports.holders()
    }

    /// Its ports lead nowhere, and are free for others. None there is fine.
    pub async fn unpublish(&self, id: &ContainerId) -> Result<()> {
        self.ports.give_up(id);
        let id = id.clone();
        tokio::task::spawn_blocking(move || ports::unpublish(&id))
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    pub async fn gate(&self, id: &ContainerId, gate: Gate) -> Result<()> {
        let name = veth::link_name(id);
        crate::sys::set_link_up(&name, gate == Gate::Open).map_err(|source| NetworkError::Kernel {
            step: "setting the gate",
            what: format!("link `{name}`"),
            source,
        })
    }

    /// Delivers what was held for a container to the host that has it now, once that is known here.
    pub async fn deliver_remote(
        &self,
        hold: Hold,
        attachment: &NetworkAttachment,
    ) -> Result<usize> {
        let vni = attachment.network.vni;
        let deadline = Instant::now() + TABLE;
        loop {
            let tables = self.tables.lock().await;
            let applied = tables.get(&vni).and_then(|known| known.applied.as_ref());
            if applied.is_some_and(|(_, entries)| entries.contains_key(&attachment.address)) {
                break;
            }
            drop(tables);
            if Instant::now() > deadline {
                return Ok(0);
            }
            sleep(Duration::from_millis(1)).await;
        }
        delivered(hold, vxlan_name(vni)).await
    }

    /// Delivers what was held for a container that is still here.
    pub async fn deliver_here(&self, hold: Hold, id: &ContainerId) -> Result<usize> {
        delivered(hold, veth::link_name(id)).await
    }

    /// Tells the neighbourhood that the container is here.
    pub async fn announce(&self, id: &ContainerId, attachment: &NetworkAttachment) -> Result<()> {
        let (netns, attachment) = (self.netns(id), attachment.clone());
        // Closing a packet socket waits for the kernel: not on a thread that others need.
        let told = tokio::task::spawn_blocking(move || announce::announce(&netns, &attachment));
        match told.await {
            Ok(told) => told,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Removes link and namespace. Nothing there is fine; goes on after a failure and reports
    /// the first.
    pub async fn detach(&self, id: &ContainerId) -> Result<()> {
        let link = device::delete(&self.handle, &veth::link_name(id)).await;
        let namespace = namespace::remove(&self.netns(id));
        link.and(namespace)
    }

    /// Lets go of a network that is no more: not of another one with its number, nor of one that a
    /// container is still on.
    pub async fn leave(&self, network: &NetworkSpec) -> Result<()> {
        let mut tables = self.tables.lock().await;
        if let Some(known) = tables.get(&network.vni) {
            let table = known.table.as_ref();
            if table.is_some_and(|(_, table)| table.network != *network) {
                return Ok(());
            }
        }
        if device::has_containers(&self.handle, network.vni).await? {
            return Ok(());
        }
        tables.remove(&network.vni);
        drop(tables);
        self.remove(network.vni).await
    }

    /// Removes a network's devices and rules. Nothing there is fine.
    pub async fn remove(&self, vni: u32) -> Result<()> {
        let mut tables = self.tables.lock().await;
        if let Some(known) = tables.get_mut(&vni) {
            known.applied = None;
            known.server = None;
        }
        let vxlan = device::delete(&self.handle, &vxlan_name(vni)).await;
        let bridge = device::delete(&self.handle, &device::bridge_name(vni)).await;
        vxlan.and(bridge).and(masquerade::remove(vni))
    }
}
