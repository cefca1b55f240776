//! Servers of several ranks: one process for each node, which find each other at an address of rank 0.
//!
//! Either all ranks are launched on this machine, or one of them, beside others on other machines. Rank 0
//! serves; the others serve nothing.

use crate::server::port;
use engine::options::Parser;
use engine::service::Probe;
use engine::step::StepError;
use engine::types::{Argument, Arguments};
use engine::value::{Kind, Table};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// The port of rank 0 where the plan's address names none.
const USUAL_PORT: u16 = 29_501;
/// The argument that says the same as `nodes`: what overlays call it.
const NNODES: &str = "nnodes";
/// Arguments that a launch of ranks sets by itself.
const OWN: [&str; 5] = [
    "node_rank",
    "dist_init_addr",
    "nccl_init_addr",
    "master_addr",
    "master_port",
];
/// How long rank 0 may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How ranks are told of each other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meeting {
    /// `--dist-init-addr HOST:PORT`.
    DistInitAddr,
    /// `--master-addr HOST --master-port PORT`, and `--headless` for all but the first.
    MasterAddr,
}

/// When a rank that serves nothing counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follower {
    /// Something answers at its own port, whatever it says: it opens that port when it is ready.
    Answers,
    /// It has no port of its own: rank 0 accepts connections, and the process lives.
    MeetsTheFirst,
}

/// What a plan says of nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranks<'a> {
    pub(super) nodes: NonZeroU32,
    /// The one that this machine has; all of them if negative.
    pub(super) node_rank: i64,
    /// Where rank 0 is; empty if all are here.
    pub(super) master: &'a str,
    pub(super) meeting: Meeting,
}

/// One process of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rank {
    pub(super) number: u32,
    nodes: u32,
    host: String,
    port: u16,
}

impl Ranks<'_> {
    /// How many nodes there are, by the option or by the argument of overlays.
    pub(super) fn nodes(&self, args: &Arguments) -> u32 {
        match (self.nodes.get(), args.get(NNODES)) {
            (1, Some(Argument::Int(n))) => u32::try_from(*n).unwrap_or(1).max(1),
            (nodes, _) => nodes,
        }
    }

    /// The ranks that are launched here; none if there is one node.
    pub(super) fn here(&self, args: &Arguments) -> Result<Vec<Rank>, StepError> {
        let nodes = self.nodes(args);
        if nodes == 1 {
            return Ok(Vec::new());
        }
        let (numbers, (host, port)) = match u32::try_from(self.node_rank) {
            Ok(number) => {
                let address = address(self.master)
                    .ok_or_else(|| StepError::new(format!("`{}` is no address", self.master)))?;
                (vec![number], address)
            }
            Err(_) => ((0..nodes).collect(), ("127.0.0.1".to_owned(), port(None)?)),
        };
        let rank = |number| Rank {
            number,
            nodes,
            host: host.clone(),
            port,
        };
        Ok(numbers.into_iter().map(rank).collect())
    }

    /// Of how many parts of a deployment how many are here.
    pub(super) fn share(&self, args: &Arguments) -> (u32, u32) {
        let nodes = self.nodes(args);
        match self.node_rank {
            0.. => (1, nodes),
            _ => (nodes, nodes),
        }
    }

    /// Whether what is launched here is a rank that serves nothing.
    pub(super) fn is_follower(&self, args: &Arguments) -> bool {
        self.nodes(args) > 1 && self.node_rank > 0
    }

    /// Reports what does not fit together.
    pub(super) fn check(&self, table: &Table, args: &Arguments, parser: &mut Parser<'_>) {
        self.check_arguments(table, parser);
        let nodes = self.nodes(args);
        let at = |name: &str| table.get(name).map(|value| &value.place);
        if let (1, Some(place)) = (nodes, self.first_given(table)) {
            let message = "`node_rank` and `master` are of several nodes, and there is one";
            let help = "say how many there are: `nodes = 2`";
            parser.wrong::<()>(place, message, "one node", help);
            return;
        }
        if let Some(place) = at("node_rank").filter(|_| self.node_rank >= i64::from(nodes)) {
            let message = format!("there is no rank {} of {nodes}", self.node_rank);
            let help = format!("ranks count from 0 to {}; -1 launches all here", nodes - 1);
            parser.wrong::<()>(place, message, "not a rank", &help);
        }
        if let Some(place) = at("node_rank").filter(|_| self.node_rank < -1) {
            let help = "write the rank that this machine has, or -1 to launch all here";
            parser.wrong::<()>(place, "a rank counts from 0", "not a rank", help);
        }
        match (self.node_rank, self.master, at("master"), at("node_rank")) {
            (0.., "", _, Some(place)) => {
                let message = "a rank beside ranks of other machines needs the address of rank 0";
                let help = "write `master = \"ADDRESS\"` or `master = \"ADDRESS:PORT\"`, the same for every rank";
                parser.wrong::<()>(place, message, "where is rank 0?", help);
            }
            (..0, "", ..) | (0.., ..) => {}
            (..0, _, place, _) => {
                let message = "all ranks are launched here, at an address of this machine";
                let help = "say which rank this machine has, `node_rank = 0`, or remove `master`";
                if let Some(place) = place {
                    parser.wrong::<()>(place, message, "not used", help);
                }
            }
        }
        if let Some(place) = at("master").filter(|_| address(self.master).is_none())
            && !self.master.is_empty()
        {
            let message = format!("`{}` is no address", self.master);
            let help = "write `HOST` or `HOST:PORT`";
            parser.wrong::<()>(place, message, "not understood", help);
        }
    }

    /// Where the plan says something of ranks.
    fn first_given<'t>(&self, table: &'t Table) -> Option<&'t engine::source::Place> {
        let rank = table.get("node_rank").filter(|_| self.node_rank != -1);
        let master = table.get("master").filter(|_| !self.master.is_empty());
        rank.or(master).map(|value| &value.place)
    }

    fn check_arguments(&self, table: &Table, parser: &mut Parser<'_>) {
        let Some(Kind::Table(args)) = table.get("args").map(|value| &value.kind) else {
            return;
        };
        for (key, _) in &args.entries {
            let flag = key.name.replace('-', "_");
            if OWN.contains(&flag.as_str()) {
                let message = format!("`{}` is set by the launch of a rank", key.name);
                let help = "write `nodes`, `node_rank` and `master` beside `args`";
                parser.wrong::<()>(&key.place, message, "an option of its own", help);
            }
            if flag == NNODES && self.nodes.get() > 1 {
                let help = "remove it here, or beside `args`";
                let message = format!("`{}` says what `nodes` says already", key.name);
                parser.wrong::<()>(&key.place, message, "the same again", help);
            }
        }
    }
}

impl Rank {
    /// The words that say which rank it is and where the first is.
    pub(super) fn words(&self, meeting: Meeting) -> Vec<String> {
        let (nodes, number) = (self.nodes.to_string(), self.number.to_string());
        let mut words = vec![
            "--nnodes".to_owned(),
            nodes,
            "--node-rank".to_owned(),
            number,
        ];
        match meeting {
            Meeting::DistInitAddr => words.extend(["--dist-init-addr".to_owned(), self.meets_at()]),
            Meeting::MasterAddr => {
                let port = self.port.to_string();
                words.extend(["--master-addr".to_owned(), self.host.clone()]);
                words.extend(["--master-port".to_owned(), port]);
                if self.number > 0 {
                    words.push("--headless".to_owned());
                }
            }
        }
        words
    }

    /// Where rank 0 waits for the others.
    pub(super) fn meets_at(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What its process is called, and its folder below that of the service; the first has that itself.
    pub(super) fn name(&self) -> String {
        format!("rank {}", self.number)
    }
}

/// Whether an argument says how many nodes there are, which the ranks' own words say again.
pub(super) fn is_of_ranks(flag: &str) -> bool {
    flag.replace('-', "_") == NNODES
}

/// Asks whether a rank that serves nothing is ready.
pub(super) async fn probe_follower(
    follower: Follower,
    status: impl Future<Output = Result<u16, String>>,
    master: &str,
) -> Probe {
    match follower {
        Follower::Answers => match status.await {
            Ok(_) => Probe::Ready(BTreeMap::new()),
            Err(why) => Probe::NotYet(why),
        },
        Follower::MeetsTheFirst => {
            let connected = tokio::net::TcpStream::connect(master);
            match tokio::time::timeout(CONNECT_LIMIT, connected).await {
                Ok(Ok(_)) => Probe::Ready(BTreeMap::new()),
                Ok(Err(_)) | Err(_) => {
                    Probe::NotYet(format!("rank 0 does not accept at `{master}` yet"))
                }
            }
        }
    }
}

/// Reads `HOST`, `HOST:PORT` or `[HOST]:PORT`.
fn address(text: &str) -> Option<(String, u16)> {
    let is_host = |host: &str| !host.is_empty() && !host.contains([' ', '/']);
    if text.starts_with('[') && text.ends_with(']') {
        return is_host(text).then(|| (text.to_owned(), USUAL_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, USUAL_PORT),
    };
    // An address with colons of its own stands in brackets.
    let is_plain = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    (is_host(host) && is_plain).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(nodes: u32, node_rank: i64, master: &str) -> Ranks<'_> {
        Ranks {
            nodes: NonZeroU32::new(nodes).unwrap(),
            node_rank,
            master,
            meeting: Meeting::DistInitAddr,
        }
    }

    fn here(ranks: Ranks<'_>, meeting: Meeting) -> Vec<String> {
        let here = ranks.here(&Arguments::default()).unwrap();
        here.iter().map(|r| r.words(meeting).join(" ")).collect()
    }

    #[test]
    fn an_address_may_name_its_port() {
        let found = |text| address(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(found("10.0.0.1").as_deref(), Some("10.0.0.1 29501"));
        assert_eq!(found("node-0:25000").as_deref(), Some("node-0 25000"));
        assert_eq!(found("[fd00::1]:25000").as_deref(), Some("[fd00::1] 25000"));
        assert_eq!(found("[fd00::1]").as_deref(), Some("[fd00::1] 29501"));
        for text in ["", ":1", "a:b", "a:0", "http://a", "fd00::1", "a b"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn one_rank_meets_the_others_where_the_plan_says() {
        let one = ranks(2, 1, "10.0.0.1:25000");
        assert_eq!(
            here(one, Meeting::DistInitAddr),
            ["--nnodes 2 --node-rank 1 --dist-init-addr 10.0.0.1:25000"]
        );
        assert_eq!(
            here(one, Meeting::MasterAddr),
            ["--nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --master-port 25000 --headless"]
        );
        let first = here(ranks(2, 0, "10.0.0.1"), Meeting::MasterAddr);
        assert_eq!(
            first,
            ["--nnodes 2 --node-rank 0 --master-addr 10.0.0.1 --master-port 29501"]
        );
        assert_eq!(one.share(&Arguments::default()), (1, 2));
        assert!(one.is_follower(&Arguments::default()));
    }

    #[test]
    fn all_ranks_meet_on_this_machine_and_one_node_has_none() {
        let all = ranks(3, -1, "").here(&Arguments::default()).unwrap();
        let numbers: Vec<u32> = all.iter().map(|rank| rank.number).collect();
        assert_eq!(numbers, [0, 1, 2]);
        assert!(all.iter().all(|rank| rank.meets_at() == all[0].meets_at()));
        assert!(all[0].meets_at().starts_with("127.0.0.1:"));
        assert_eq!(here(ranks(1, -1, ""), Meeting::DistInitAddr), [""; 0]);
        assert!(!ranks(3, -1, "").is_follower(&Arguments::default()));
    }
}
