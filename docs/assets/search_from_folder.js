// Browsers start no worker from a page that was opened from a folder. There the search runs in a hidden frame instead,
// which has the same messages. Pages that come from a server keep the browser's own worker.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      this.ready = new Promise((resolve) => {
        const script = inner.document.createElement("script");
        script.src = new URL(address, document.baseURI).href;
        script.onload = resolve;
        inner.document.body.appendChild(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => {
        const inner = this.frame.contentWindow;
        inner.dispatchEvent(new inner.MessageEvent("message", { data })); // onmessage of a window is called by this
      });
    }

    terminate() {
      this.frame.remove();
    }
  };
}
