//! The clients of the two peers, the SM-DP+ (ES2+) and the mobile network (TMF641), and the JSON bodies of both
//! protocols. When to call a peer is not here.

mod access;
pub mod es2plus;
mod facts;
pub mod http;
mod lenient;
mod response;
pub mod tmf641;

pub use access::{Access, BadSecret};
pub use es2plus::{Confirmed, Es2Plus, Es2PlusError, FinalStatus, ProfileStatus, ReportedState};
pub use facts::VendorPoints;
pub use lenient::read_json;
pub use response::{FailureClass, Peer, TransientFailure};
pub use tmf641::{NewOrder, Order, OrderState, OrderingError, ServiceOrdering};

/// A connector without a client certificate and without a token.
pub fn connector() -> aws_smithy_runtime_api::client::http::SharedHttpConnector {
    Access::default().connector()
}
