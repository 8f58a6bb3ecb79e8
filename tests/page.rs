//! The web page at `/ui`, served by the built program and used in a headless Chromium.
//!
//! `MUSTER_PAGE_IMAGES=1 cargo test --test page pictures` writes the pictures of the documentation, `docs/images/page-*.png`.
//! Without the variable the tests only check these files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "page/events.rs"]
mod events;
#[path = "page/files.rs"]
mod files;
#[path = "page/keyboard.rs"]
mod keyboard;
#[path = "page/layout.rs"]
mod layout;
#[path = "page/live.rs"]
mod live;
#[path = "page/messages.rs"]
mod messages;
#[path = "page/order.rs"]
mod order;
#[path = "page/pictures.rs"]
mod pictures;
#[path = "page/scene.rs"]
mod scene;
#[path = "page/security.rs"]
mod security;
#[path = "page/store.rs"]
mod store;
