//! Kinds of servers that launch and are asked alike: their options, those of all among them.

/// Declares options of a server with those of all among them, and makes a service of it.
macro_rules! known_server {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident { $($own:tt)* }
        use $use:literal, $nature:ident, $version:literal, $summary:literal;
    ) => {
        engine::options! {
            $(#[doc = $doc])+
            pub struct $name {
                /// The model's folder.
                model: engine::types::Artifact<crate::kinds::Model>;
                /// The environment that has the server, as `env.python` builds one; its program is searched in
                /// `PATH` if absent.
                environment: Option<engine::types::Artifact<crate::kinds::PythonEnvironment>>;
                /// The program and its first arguments, in place of the usual ones.
                command: Vec<engine::types::Text> = Vec::new();
                /// The port on 127.0.0.1; any free one if absent.
                port: Option<u16>;
                /// The name under which the model is served; the server's own choice if absent.
                served_model_name: Option<String>;
                $($own)*
                /// Whether it counts, and tells, what it finds in its prefix cache, in its metrics and of each
                /// request.
                metrics: bool = true;
                /// Further flags as a table: `tp_size = 2` becomes `--tp-size 2`, `true` a bare flag, `false` none,
                /// a list one flag with several values, a table one JSON value. `{port}` stands for the port.
                args: engine::types::Arguments = engine::types::Arguments::default();
                /// Environment variables. `{port}` stands for the port.
                env: std::collections::BTreeMap<String, engine::types::Text> = std::collections::BTreeMap::new();
                /// Environment variables that are passed on as they are. Values other than those of `PATH`,
                /// `HOME` and `LANG` are part of the key.
                inherit: Vec<String> = ["PATH", "HOME", "LANG"].map(str::to_owned).to_vec();
                /// Whether its cache is flushed between samples.
                flush_cache: bool = true;
            }
        }

        impl $name {
            fn common(&self) -> super::Common<'_> {
                super::Common {
                    nature: &$nature,
                    beyond: self,
                    model: &self.model,
                    environment: self.environment.as_ref(),
                    command: &self.command,
                    port: self.port,
                    given: super::but_for(self.given(), &self.args),
                    args: &self.args,
                    env: &self.env,
                    inherit: &self.inherit,
                    flush_cache: self.flush_cache,
                }
            }
        }

        impl $name {
            fn identity_of(&self) -> Vec<(String, String)> {
                self.common().identity()
            }

            fn check_options(
                &self,
                table: &engine::value::Table,
                _: &engine::source::Place,
                parser: &mut engine::options::Parser<'_>,
            ) {
                self.common().check(table, parser);
            }

            fn gpus_of(&self) -> Option<u32> {
                self.common().gpus()
            }

            async fn prepared(
                &self,
                context: &engine::service::LaunchContext,
                supervisor: &engine::process::Supervisor,
            ) -> Result<(), engine::step::StepError> {
                self.common().prepare(context, supervisor).await
            }

            fn launched(
                &self,
                context: &engine::service::LaunchContext,
            ) -> Result<engine::service::Launch, engine::step::StepError> {
                self.common().launch(context)
            }

            async fn probed(&self, endpoint: &engine::service::Endpoint) -> engine::service::Probe {
                super::probe(&$nature, endpoint).await
            }

            fn health_of(&self) -> Option<String> {
                (!self.common().is_follower()).then(|| super::HEALTH.to_owned())
            }

            async fn emptied(
                &self,
                endpoint: &engine::service::Endpoint,
            ) -> Result<(), engine::step::StepError> {
                match self.flush_cache && !self.common().is_follower() {
                    true => crate::server::flush_cache(endpoint).await,
                    false => Ok(()),
                }
            }
        }

        super::served::served! { $name, $use, $version, $summary }
    };
}

pub(super) use known_server;
