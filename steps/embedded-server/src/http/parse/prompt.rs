//! The text that is to be continued: a prompt in its four spellings, or a conversation.

use serde::Deserialize;

use super::super::error::ApiError;
use super::super::fields::Fields;
use super::Served;
use crate::chat::{self, Message, Part, Role};
use crate::images::placeholder;

/// What stands for an image in a text of SGLang's own protocol.
const IMAGE_TOKEN: &str = "<image>";

/// Prompts as token ids.
#[derive(Debug)]
pub(super) struct Prompts {
    pub(super) ids: Vec<Vec<u32>>,
    pub(super) is_list: bool,
}

/// The four spellings of a prompt.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

/// The prompts in the first of the fields `names` that is there.
pub(super) fn prompts(
    fields: &mut Fields,
    names: &[&'static str],
    served: &Served,
) -> Result<Prompts, ApiError> {
    let expected = "a string, an array of token ids, or an array of either";
    let name = names.iter().find(|name| fields.has(name));
    let Some(name) = name.or(names.last()).copied() else {
        return Err(ApiError::bad_request("no prompt"));
    };
    let missing = || ApiError::field(name, format!("missing, expected {expected}"));
    let spelling = fields.take(name, expected)?.ok_or_else(missing)?;
    let is_list = matches!(spelling, Spelling::Texts(_) | Spelling::IdLists(_));
    let prompts = match spelling {
        Spelling::Text(text) => vec![served.tokenizer.encode(&text)?],
        Spelling::Ids(ids) => vec![ids],
        Spelling::Texts(texts) => {
            let ids = texts.iter().map(|text| served.tokenizer.encode(text));
            ids.collect::<Result<_, _>>()?
        }
        Spelling::IdLists(lists) => lists,
    };
    let mut ids = prompts.iter().flatten();
    if let Some(id) = ids.find(|id| **id as usize >= served.vocab_size) {
        let n = served.vocab_size;
        let problem = format!("token id {id} is outside the vocabulary of {n} ids");
        return Err(ApiError::field(name, problem));
    }
    Ok(Prompts {
        ids: prompts,
        is_list,
    })
}

/// Images in SGLang's own spelling: one, or those of one prompt in their order.
#[derive(Deserialize)]
#[serde(untagged)]
enum ImageData {
    One(String),
    Several(Vec<String>),
}

/// The prompts of SGLang's own route: texts or token ids, and one text also with images. Each stands where
/// the text has `<image>`; where it has none, they stand before it.
pub(super) fn generated(fields: &mut Fields, served: &Served) -> Result<Prompts, ApiError> {
    const FIELD: &str = "image_data";
    let expected = "an image, or an array of the images of one prompt";
    let images = match fields.take(FIELD, expected)? {
        None => Vec::new(),
        Some(ImageData::One(image)) => vec![image],
        Some(ImageData::Several(images)) => images,
    };
    if images.is_empty() {
        return prompts(fields, &["input_ids", "text"], served);
    }
    let images = images.iter().map(|image| stands_for(image, FIELD, served));
    let images: Vec<Vec<u32>> = images.collect::<Result<_, _>>()?;
    let text: Option<String> = fields.take("text", "a string: images stand beside one text")?;
    let missing = || ApiError::field("text", "missing; images stand beside one text");
    let text = text.ok_or_else(missing)?;
    let marks = text.matches(IMAGE_TOKEN).count();
    if marks > 0 && marks != images.len() {
        let n = images.len();
        let problem = format!("found {marks} `{IMAGE_TOKEN}` for {n} images");
        return Err(ApiError::field("text", problem));
    }
    let mut parts = Vec::new();
    if marks == 0 {
        parts.extend(images.into_iter().map(Part::Image));
        parts.push(Part::Text(text));
    } else {
        let mut images = images.into_iter();
        for piece in text.split(IMAGE_TOKEN) {
            parts.push(Part::Text(piece.to_owned()));
            parts.extend(images.next().map(Part::Image));
        }
    }
    Ok(Prompts {
        ids: vec![chat::encode(&served.tokenizer, &parts)?],
        is_list: false,
    })
}

/// The token ids that an image of the field `field` stands for.
fn stands_for(image: &str, field: &'static str, served: &Served) -> Result<Vec<u32>, ApiError> {
    let Some(n_tokens) = served.image_tokens else {
        let problem = "this server takes no images; start it with `--image-tokens N` to let each \
                       stand for N tokens";
        return Err(ApiError::field(field, problem).code("unsupported"));
    };
    placeholder(image, n_tokens).map_err(|problem| ApiError::field(field, problem))
}

#[derive(Deserialize)]
struct AskedMessage {
    role: Role,
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<AskedPart>),
}

/// Other kinds of parts are refused.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum AskedPart {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Deserialize)]
struct ImageUrl {
    url: String,
}

/// The prompt that a conversation is, up to where its reply begins.
pub(super) fn chatted(fields: &mut Fields, served: &Served) -> Result<Prompts, ApiError> {
    let messages = messages(fields, served)?;
    Ok(Prompts {
        ids: vec![chat::render(&served.tokenizer, &messages)?],
        is_list: false,
    })
}

fn messages(fields: &mut Fields, served: &Served) -> Result<Vec<Message>, ApiError> {
    let expected = "an array of messages, each with a `role` (system, user, assistant or tool) and \
                    text or parts (`text`, `image_url`) as `content`";
    let asked: Option<Vec<AskedMessage>> = fields.take("messages", expected)?;
    let missing = || ApiError::field("messages", format!("missing, expected {expected}"));
    let asked = asked
        .filter(|messages| !messages.is_empty())
        .ok_or_else(missing)?;
    let part = |asked| match asked {
        AskedPart::Text { text } => Ok(Part::Text(text)),
        AskedPart::ImageUrl { image_url } => {
            stands_for(&image_url.url, "messages", served).map(Part::Image)
        }
    };
    let content = |asked| match asked {
        Content::Text(text) => Ok(vec![Part::Text(text)]),
        Content::Parts(parts) => parts.into_iter().map(part).collect(),
    };
    let message = |asked: AskedMessage| {
        Ok(Message {
            role: asked.role,
            content: content(asked.content)?,
        })
    };
    asked.into_iter().map(message).collect()
}
