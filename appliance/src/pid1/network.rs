//! The network as the signed site file says it, on the port that the profile names.
//!
//! Promises: one address on one port a role, a route to the gateway, nothing learned from the
//! network itself: no DHCP, no router's word. A port answers for its own address alone, and
//! knows no IPv6 if that is one of IPv4. It opens no socket to anybody.

use std::{fs, net::IpAddr, path::Path};

use anyhow::Context;
use futures_util::TryStreamExt;
use hoidla_format::{
    profile::{Profile, Role},
    statements::{ApplianceEntry, Network},
};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::boot::port_of;

/// Settings of IPv6 for each port, before it is up.
const QUIET: &[(&str, &str)] = &[("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("accept_redirects", "0")];

/// Brings up what the site file says for this appliance; the port of each role that it names.
pub fn up(sys: &Path, profile: &Profile, entry: &ApplianceEntry) -> anyhow::Result<Vec<(Role, String)>> {
    let roles = [(Role::Door, entry.network.as_ref()), (Role::Health, entry.health.as_ref().map(|h| &h.network))];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut ports = Vec::new();
    for (role, network) in roles {
        if let Some(network) = network {
            let port = port_of(sys, profile, role)?;
            quiet(&port, network);
            runtime.block_on(bring_up(&port, network)).with_context(|| format!("the network port {port}"))?;
            tracing::info!("{role}: {} on {port}", network.address);
            ports.push((role, port));
        }
    }
    Ok(ports)
}

fn quiet(port: &str, network: &Network) {
    let none = network.address.ip().is_ipv4().then_some(("disable_ipv6", "1"));
    for (name, value) in QUIET.iter().copied().chain(none) {
        // A kernel without IPv6 has none of these, and needs none.
        _ = fs::write(format!("/proc/sys/net/ipv6/conf/{port}/{name}"), value);
    }
}

async fn bring_up(port: &str, network: &Network) -> anyhow::Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let talk = tokio::spawn(connection);
    let found = handle.link().get().match_name(port.to_owned()).execute().try_next().await?;
    let index = found.context("it is gone")?.header.index;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    handle.address().add(index, network.address.ip(), network.address.prefix()).execute().await?;
    match network.gateway {
        Some(IpAddr::V4(gateway)) => {
            handle.route().add(RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(gateway).build()).execute().await?;
        }
        Some(IpAddr::V6(gateway)) => {
            handle.route().add(RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(gateway).build()).execute().await?;
        }
        None => {}
    }
    talk.abort();
    Ok(())
}
