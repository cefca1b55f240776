//! What services of known servers do alike, however they launch and are asked.

/// Makes a service of a kind that has `identity_of`, `check_options`, `gpus_of`, `prepared`, `launched`, `probed`,
/// `health_of` and `emptied`.
macro_rules! served {
    ($name:ident, $use:literal, $version:literal, $summary:literal) => {
        impl engine::service::ServiceType for $name {
            const NAME: &'static str = $use;
            const KIND: &'static str =
                <crate::kinds::InferenceServer as engine::types::ArtifactKind>::NAME;
            const VERSION: u32 = $version;
            const SUMMARY: &'static str = $summary;
            const FACTS: &'static [&'static str] = super::FACTS;
            const READY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1800);

            fn identity(&self) -> Vec<(String, String)> {
                self.identity_of()
            }

            fn check(
                &self,
                table: &engine::value::Table,
                place: &engine::source::Place,
                parser: &mut engine::options::Parser<'_>,
            ) {
                self.check_options(table, place, parser);
            }
        }

        #[async_trait::async_trait]
        impl engine::service::Service for $name {
            fn fixed_port(&self) -> Option<u16> {
                self.port.filter(|port| *port != 0)
            }

            fn gpus(&self) -> Option<u32> {
                self.gpus_of()
            }

            async fn prepare(
                &self,
                context: &engine::service::LaunchContext,
                supervisor: &engine::process::Supervisor,
            ) -> Result<(), engine::step::StepError> {
                self.prepared(context, supervisor).await
            }

            fn launch(
                &self,
                context: &engine::service::LaunchContext,
            ) -> Result<engine::service::Launch, engine::step::StepError> {
                self.launched(context)
            }

            async fn probe(&self, endpoint: &engine::service::Endpoint) -> engine::service::Probe {
                self.probed(endpoint).await
            }

            async fn http_status(
                &self,
                endpoint: &engine::service::Endpoint,
                path: &str,
            ) -> Result<u16, String> {
                crate::http::status(crate::http::Peer::of(endpoint), path).await
            }

            fn health(&self) -> Option<String> {
                self.health_of()
            }

            fn diagnose(&self, log: &str) -> Option<engine::logs::Diagnosis> {
                crate::diagnosis::diagnose(log)
            }

            async fn reset(
                &self,
                endpoint: &engine::service::Endpoint,
            ) -> Result<(), engine::step::StepError> {
                self.emptied(endpoint).await
            }

            async fn released(&self, endpoint: &engine::service::Endpoint) -> Result<(), String> {
                crate::server::port_released(endpoint)
            }
        }
    };
}

pub(super) use served;
