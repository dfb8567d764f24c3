// Pictures of the server. Where it asks for a key, which an <img> cannot send, they are fetched and kept as blobs.
import { download, hasKey, url } from "./api.js";
import { useEffect, useState } from "./html.js";

const kept = new Map(); // path → promise of an address
const EMPTY = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

/** The address under which a picture of the server can be shown. */
export function usePicture(path) {
  const direct = !hasKey();
  const [address, setAddress] = useState(EMPTY);
  useEffect(() => {
    if (direct) return;
    let wanted = true;
    if (!kept.has(path)) kept.set(path, download(path).then(({ blob }) => URL.createObjectURL(blob), () => EMPTY));
    kept.get(path).then((found) => { if (wanted) setAddress(found); });
    return () => { wanted = false; };
  }, [path, direct]);
  return direct ? url(path) : address;
}
