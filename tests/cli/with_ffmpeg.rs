//! Frames of real video files, which ffmpeg makes here and takes apart again.

use super::folder::Folder;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A video of two seconds with ten frames each.
fn video(path: &Path) {
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i"])
        .arg("testsrc=duration=2:size=64x48:rate=10")
        .args(["-c:v", "mpeg4", "-bitexact"])
        .arg(path)
        .stdin(Stdio::null())
        .status();
    assert!(made.expect("ffmpeg").success());
}

fn plan(folder: &Folder, more: &str) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    let text = format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "{}", set = {{ num_hidden_layers = 2, vocab_size = 8192 }} }}

[steps.videos]
use = "workload.nextqa"
with = {{ source = "nextqa", model = "${{steps.model.dir}}", image_tokens = 20, conversations = 2, shuffle = false, {more} }}
"#,
        base.display()
    );
    folder.plan("videos", &text);
}

fn images(folder: &Folder) -> Vec<Vec<String>> {
    let path = folder.path("outputs/latest/results/videos/workload/workload.jsonl");
    let text = fs::read_to_string(path).expect("a workload");
    let of = |line: &str| -> Vec<String> {
        let line: Value = serde_json::from_str(line).expect("JSON");
        serde_json::from_value(line["images"].clone()).expect("images")
    };
    text.lines().map(of).collect()
}

/// Width and height of a JPEG image.
fn size(folder: &Folder, image: &str) -> (u16, u16) {
    let path = folder
        .path("outputs/latest/results/videos/workload")
        .join(image);
    let bytes = fs::read(path).expect("an image");
    let mut at = 2;
    loop {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        // The segment that begins a frame has both behind its length and precision.
        if bytes[at] == 0xff && (0xc0..=0xc3).contains(&bytes[at + 1]) {
            return (number(at + 7), number(at + 5));
        }
        at += 2 + usize::from(number(at + 2));
    }
}

#[test]
fn frames_are_taken_evenly_or_at_a_rate_and_are_the_same_every_time() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("nextqa/OE")).expect("a folder");
    video(&folder.path("nextqa/7.mp4"));
    fs::write(folder.path("nextqa/8.mp4"), "no video").expect("a file");
    let questions = "video,question\n8,why\n7,who\n7,why\n";
    fs::write(folder.path("nextqa/OE/test.csv"), questions).expect("questions");

    plan(&folder, "frames = 4");
    let refused = folder.run(&["run", "videos.toml"]);
    let all = format!("{}{}", refused.out, refused.err);
    assert_eq!(refused.code, Some(1), "{all}");
    assert!(all.contains("video `8`: ffprobe cannot read it"), "{all}");

    let taken = |more: &str| {
        plan(&folder, &format!("damaged = \"recover\", {more}"));
        // Nothing of what was made before is taken again.
        fs::remove_dir_all(folder.path("outputs")).expect("removed");
        let said = folder.run(&["run", "videos.toml"]);
        let all = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, Some(0), "{all}");
        assert!(all.contains("of 1 videos by ffmpeg "), "{all}");
        assert!(
            all.contains("1 videos left out, the first: video `8`"),
            "{all}"
        );
        images(&folder)
    };
    let evenly = taken("frames = 4, size = 32");
    assert_eq!((evenly[0].len(), evenly.len()), (4, 2));
    assert_eq!(evenly[0], evenly[1]);
    assert_eq!(size(&folder, &evenly[0][0]), (32, 24));
    assert_eq!(taken("frames = 4, size = 32"), evenly);
    let all = taken("frames = 100");
    assert_eq!(all[0].len(), 20);
    assert_eq!(size(&folder, &all[0][0]), (64, 48));
    let first_of_each_second = taken("frames_per_second = 1.0, frames = 8");
    assert_eq!(first_of_each_second[0].len(), 2);
}
