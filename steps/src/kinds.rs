//! The kinds of artifacts and services: what may be plugged into what.

use engine::types::ArtifactKind;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        pub(crate) struct $name;

        impl ArtifactKind for $name {
            const NAME: &'static str = $text;
        }
    )+ };
}

kinds! {
    /// A folder as the Hugging Face hub has it: `config.json`, tokenizer, perhaps weights.
    Model = "model";
    /// Requests, one JSON line each.
    Workload = "workload";
    /// Rows of measured values, see [`crate::result`].
    Measured = "result";
    /// A folder with a chart as `chart.json`, SVG and PNG.
    Chart = "chart";
    /// What a simulated device has and how long its steps take, as TOML.
    DeviceProfile = "device profile";
    /// An environment of locked Python packages, see `env.python`.
    PythonEnvironment = "python environment";
    /// A program `llama-server`, see `env.llama_cpp`.
    LlamaServer = "llama-server";
    /// Where replicas of a checkpoint lie.
    ReplicaSet = "replicas";
    /// A folder of whatever a command wrote.
    Files = "files";
    /// A server that speaks the OpenAI protocol.
    InferenceServer = "inference server";
    /// A ServerlessLLM store, which loads checkpoints for others.
    ModelStore = "model store";
}
