// Hold a request while devpi is away, then send it on its way again, body and all.

const PAUSE = 200; // milliseconds between two looks

function pause() {
    return new Promise((resolve) => setTimeout(resolve, PAUSE * (0.5 + Math.random())));
}

async function wait(r) {
    const deadline = Date.now() + 1000 * Number(r.variables.hold_seconds);
    while (Date.now() < deadline) {
        const answer = await r.subrequest('/+hold/api');
        if (answer.status === 200) {
            r.internalRedirect('@devpi');
            return;
        }
        await pause();
    }
    r.headersOut['Retry-After'] = '10';
    r.headersOut['Content-Type'] = 'text/plain';
    r.return(503, 'The package server is not there just now. Try again in a few seconds.\n');
}

export default { wait };
