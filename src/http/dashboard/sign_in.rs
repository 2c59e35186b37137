//! The page that asks for the token.

use super::layout::Frame;
use super::{Here, Paper};
use crate::http::access::{Access, is_of_our_page};
use crate::http::params::Params;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

pub(super) async fn page() -> Paper {
    Paper::of(asking(None))
}

fn asking(fault: Option<&str>) -> Markup {
    let body = html! {
        h1 { "Sign in" }
        @if let Some(fault) = fault { p .bad role="alert" { (fault) } }
        form .line method="post" action="/sign-in" {
            div {
                label for="token" { "Token of [http]" }
                input id="token" name="token" type="password" autocomplete="current-password" required autofocus;
            }
            button .main { "Sign in" }
        }
    };
    Frame { title: "Sign in", here: "", body }.alone()
}

pub(super) async fn take(State(site): Here, headers: HeaderMap, Form(pairs): Form<Vec<(String, String)>>) -> Response {
    let token = Params::of_pairs(pairs).ok().and_then(|mut params| params.text("token")).unwrap_or_default();
    let cookie = is_of_our_page(&headers).then(|| site.access.sign_in(&token)).flatten();
    match cookie {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        None => (StatusCode::UNAUTHORIZED, Paper::of(asking(Some("That is not the token.")))).into_response(),
    }
}

pub(super) async fn end() -> Response {
    ([(header::SET_COOKIE, Access::sign_out())], Redirect::to("/sign-in")).into_response()
}
