//! The two simulators as a process: `simulators CALLBACK_URL SMDP_PORT NETWORK_PORT`. A deployment on an emulator uses
//! it; the local stack and the tests run the simulators in their own process.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use domain::SmDpAddress;
use edge::ClockAndRng;
use simulators::{MobileNetwork, SMDP_ADDRESS, Smdp};
use tokio::net::TcpListener;

/// The time that the simulated network takes for an order.
const DELAY: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [callback, smdp_port, network_port] = arguments.as_slice() else {
        return Err("three arguments are needed: CALLBACK_URL SMDP_PORT NETWORK_PORT".into());
    };
    let address = SmDpAddress::parse(SMDP_ADDRESS)?;
    let smdp = Arc::new(Smdp::open(None, address, callback, ClockAndRng::real())?);
    let network = Arc::new(MobileNetwork::open(None, DELAY, ClockAndRng::real())?);
    let listener = TcpListener::bind(("127.0.0.1", smdp_port.parse()?)).await?;
    let smdp = smdp.serve(listener, peers::connector());
    let listener = TcpListener::bind(("127.0.0.1", network_port.parse()?)).await?;
    let network = network.serve(listener, peers::connector());
    // Each ends only when its database fails.
    tokio::select! {
        ended = smdp => ended?,
        ended = network => ended?,
    }
    Err("a simulator ended".into())
}
