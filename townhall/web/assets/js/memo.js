// A component that renders again only when one of its properties changed (Object.is).
import { Component, h } from "../vendor/preact.js";

export function memo(component) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const now = this.props, names = Object.keys(next);
      return names.length !== Object.keys(now).length || names.some((name) => !Object.is(next[name], now[name]));
    }

    render(props) { return h(component, props); }
  };
}
