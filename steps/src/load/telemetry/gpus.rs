//! Which GPUs a server uses, as far as that can be known.
//!
//! Its processes descend from this one, and NVML names who computes on a GPU: where both see the same
//! processes, only GPUs with such a process count. In a container they may not; then all are read, and it is said.

use super::super::timeline::FACT as OWN;
use engine::service::Endpoint;
use telemetry::{Gpu, Gpus, Nvml};

/// Ancestors that are looked at: nobody starts a server through more.
const ANCESTORS: usize = 64;

/// What was found.
pub(super) struct Choice {
    pub(super) chosen: Option<(Box<dyn Gpus>, Vec<Gpu>)>,
    /// Which, and why, in words.
    pub(super) said: String,
}

/// The GPUs of a server.
pub(super) fn of(endpoint: &Endpoint) -> Choice {
    let none = |said: &str| Choice {
        chosen: None,
        said: format!("none, as {said}"),
    };
    if !is_here(endpoint) {
        return none("the server is on another machine");
    }
    let nvml = match Nvml::load() {
        Ok(nvml) => nvml,
        Err(absent) => return none(&absent.to_string()),
    };
    let gpus = match nvml.list() {
        Ok(gpus) => gpus,
        Err(why) => return none(&why),
    };
    let is_own = endpoint.facts.contains_key(OWN);
    let (chosen, said) = choose(gpus, |gpu| nvml.processes(gpu), descends, is_own);
    match chosen.is_empty() {
        true => none(said),
        false => Choice {
            said: format!("{}, as {said}", chosen.len()),
            chosen: Some((Box::new(nvml), chosen)),
        },
    }
}

/// Chooses by the processes that compute on each.
fn choose(
    gpus: Vec<Gpu>,
    processes: impl Fn(&Gpu) -> Vec<u32>,
    is_ours: impl Fn(u32) -> bool,
    is_own: bool,
) -> (Vec<Gpu>, &'static str) {
    let is_used = |gpu: &Gpu| processes(gpu).into_iter().any(&is_ours);
    let used: Vec<Gpu> = gpus.iter().filter(|gpu| is_used(gpu)).cloned().collect();
    match (used.is_empty(), is_own) {
        (false, _) => (used, "processes of the server compute on them"),
        (true, true) => (Vec::new(), "no process of the server computes on any"),
        (true, false) if gpus.is_empty() => (gpus, "NVML tells of none"),
        (true, false) => (
            gpus,
            "it is not told which the server uses, and these are all",
        ),
    }
}

fn is_here(endpoint: &Endpoint) -> bool {
    endpoint.address().is_some_and(|(host, _)| {
        let ip = host.parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    })
}

/// Whether a process descends from this one.
fn descends(pid: u32) -> bool {
    let own = std::process::id();
    let parents = std::iter::successors(Some(pid), |pid| parent(*pid));
    parents.take(ANCESTORS).any(|pid| pid == own)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A name may hold anything; what follows its last parenthesis is numbers.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus() -> Vec<Gpu> {
        let gpu = |index: u32| Gpu {
            index,
            uuid: format!("GPU-{index}"),
            name: "made up".to_owned(),
        };
        (0..2).map(gpu).collect()
    }

    #[test]
    fn only_gpus_with_a_process_of_the_server_count_where_that_is_told() {
        let on_second = |gpu: &Gpu| vec![100 + gpu.index];
        let chosen =
            |is_ours: fn(u32) -> bool, is_own| choose(gpus(), on_second, is_ours, is_own).0;
        assert_eq!(chosen(|pid| pid == 101, false), gpus()[1..]);
        assert_eq!(chosen(|_| false, false), gpus());
        // The built-in server computes on processors.
        assert_eq!(chosen(|_| false, true), []);
    }

    #[test]
    fn descendants_are_those_of_this_process() {
        assert!(descends(std::process::id()));
        assert!(!descends(1));
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.expect("a child");
        assert!(descends(child.id()));
        child.kill().expect("ended");
        child.wait().expect("gone");
    }

    #[test]
    fn a_server_elsewhere_has_none_of_this_machine_s() {
        let said = |url: &str| of(&Endpoint::new(url, std::collections::BTreeMap::new())).said;
        assert_eq!(
            said("http://example.org:8000"),
            "none, as the server is on another machine"
        );
        assert_ne!(
            said("http://127.0.0.1:8000"),
            "none, as the server is on another machine"
        );
    }
}
