//! What becomes of services in a run: launched, told of, given up.

use super::live::ServiceNews;
use super::{LOG_LINES, Run, RunError, millis};
use crate::event::Event;
use crate::graph::NodeId;
use crate::policy::port_pool;
use crate::process::{log_tail, port_is_free};
use crate::schedule::{Action, Happened};
use crate::step::{FailureClass, Progress, StepError};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

impl Run {
    /// Finds out before anything runs whether ports that the plan gives are taken. What another run
    /// has is waited for like everything that runs take from each other.
    pub(super) fn check_ports(&mut self) -> Result<(), RunError> {
        if std::mem::replace(&mut self.ports_checked, true) {
            return Ok(());
        }
        for id in self.graph.order() {
            let service = self.graph.service(*id);
            let Some(port) = service.and_then(|s| s.service.fixed_port()) else {
                continue;
            };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (pool, part) = (port_pool(port).0, port.to_string());
            // A lock that cannot be used is told of when it is needed.
            let is_held = || matches!(self.claims.holder(&pool, &part), Ok(Some(_)));
            if self.schedule.may_launch(*id) && !port_is_free(address) && !is_held() {
                let service = self.graph.name(*id);
                return Err(RunError::PortInUse { port, service });
            }
        }
        Ok(())
    }

    pub(super) fn launch(&mut self, service: NodeId) -> Result<(), RunError> {
        let name = self.graph.name(service);
        let incarnation = self.schedule.incarnation(service);
        self.tell(&Event::ServiceLaunching {
            node: name.clone(),
            incarnation,
        })?;
        let folder = self.folder.logs(&name, incarnation)?;
        let resolved = self.ledger.resolved(service);
        self.live.launch(
            service,
            incarnation,
            self.schedule.front(service),
            folder,
            resolved,
            self.supervisor.clone(),
        );
        Ok(())
    }

    pub(super) fn service_news(&mut self, news: ServiceNews) -> Result<Vec<Action>, RunError> {
        match news {
            ServiceNews::Doing(node, doing) => {
                let progress = Progress { doing, done: None };
                self.tell(&Event::Progressed {
                    node: self.graph.name(node),
                    progress,
                })?;
                Ok(Vec::new())
            }
            ServiceNews::Up { .. } => self.service_up(news),
            ServiceNews::Anew {
                node,
                incarnation,
                endpoint,
            } => {
                self.live.is_anew(node, incarnation, endpoint);
                self.schedule.launched_anew(node);
                Ok(Vec::new())
            }
            ServiceNews::LaunchFailed(node, error) => {
                self.live.is_down(node);
                self.fail(node, None, &error)?;
                Ok(self.schedule.on(Happened::Failed(node, error.class)))
            }
            ServiceNews::Died {
                node,
                incarnation,
                how,
                folder,
            } => self.service_died(node, incarnation, how, folder),
            ServiceNews::Down {
                node,
                took,
                trouble,
            } => {
                self.live.is_down(node);
                self.tell(&Event::ServiceStopped {
                    node: self.graph.name(node),
                    took_ms: millis(took),
                    trouble: trouble.clone(),
                })?;
                self.service_stopped(node, trouble)
            }
        }
    }

    /// A service answers.
    fn service_up(&mut self, news: ServiceNews) -> Result<Vec<Action>, RunError> {
        let ServiceNews::Up {
            node,
            incarnation,
            endpoint,
            processes,
            took,
        } = news
        else {
            return Ok(Vec::new());
        };
        let url = endpoint.url.clone();
        self.live.is_up(node, endpoint, processes);
        self.ledger.keep_launch(node, millis(took))?;
        self.tell(&Event::ServiceReady {
            node: self.graph.name(node),
            incarnation,
            url,
            took_ms: millis(took),
        })?;
        Ok(self.schedule.on(Happened::Ready(node)))
    }

    /// What a service still holds is not given to anyone else: no other is launched any more.
    fn service_stopped(
        &mut self,
        node: NodeId,
        trouble: Option<String>,
    ) -> Result<Vec<Action>, RunError> {
        let Some(held) = trouble else {
            return Ok(self.schedule.on(Happened::Stopped(node)));
        };
        let error = StepError::new(format!("it is torn down, but {held}"))
            .help("end what holds it, then resume the run")
            .class(FailureClass::Infrastructure);
        self.fail(node, None, &error)?;
        Ok(self.schedule.on(Happened::Failed(node, error.class)))
    }

    fn service_died(
        &mut self,
        node: NodeId,
        incarnation: u32,
        how: String,
        folder: PathBuf,
    ) -> Result<Vec<Action>, RunError> {
        if !self.live.died(node, incarnation, &how, folder) {
            return Ok(Vec::new());
        }
        let log = self.live.log_of(node);
        let tail = log.as_deref().map(|l| log_tail(l, LOG_LINES));
        self.tell(&Event::ServiceDied {
            node: self.graph.name(node),
            incarnation,
            how,
            log,
            log_tail: tail.unwrap_or_default(),
        })?;
        let actions = self.schedule.on(Happened::Died(node));
        if self.schedule.has_failed(node) {
            let error = StepError::new("it dies again and again, and no step ends well on it")
                .class(FailureClass::Infrastructure);
            self.fail(node, None, &error)?;
        }
        Ok(actions)
    }
}
